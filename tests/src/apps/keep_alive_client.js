// Asks over a pool of one connection, in turns without and with a header: keep_alive_client.js ADDRESS PORT HEADER VALUE
//
// Prints a line for each answer: the local port and who answered. Ends when a request fails.
const http = require('http');

const [address, port, name, value] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(matching) {
  const headers = matching ? { [name]: value } : {};
  const request = http.get({ host: address, port, path: '/whoami', agent, headers }, (response) => {
    const localPort = response.socket.localPort;
    let text = '';
    response.on('data', (piece) => { text += piece; });
    response.on('end', () => {
      console.log(localPort, matching ? 'matching' : 'plain', JSON.parse(text).served_by);
      setTimeout(() => ask(!matching), 20);
    });
  });
  request.on('error', (error) => { console.log('failed', error.code); process.exit(1); });
}

ask(false);
