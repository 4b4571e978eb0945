// A server that tells how its connections end: ends.js PORT
//
// Answers with JSON that says "app"; prints "end" when a client finished, "error CODE" for anything else.
const http = require('http');

const server = http.createServer({ keepAliveTimeout: 120000 }, (request, response) => {
  request.resume();
  request.on('end', () => response.end(JSON.stringify({ served_by: 'app' }) + '\n'));
});
server.on('connection', (socket) => {
  socket.on('end', () => console.log('end'));
  socket.on('error', (error) => console.log('error', error.code));
});
server.on('clientError', (error, socket) => { console.log('error', error.code); socket.destroy(); });
server.listen({ host: '::', port: Number(process.argv[2]), backlog: 4096 }, () => console.log('ready'));
