// Answers with who it is and the query of the request: answering.js NAME PORT. Node's own HTTP server.
const http = require("http");

const [name, port] = process.argv.slice(2);
const server = http.createServer((request, response) => {
  request.resume();
  request.on("error", (error) => console.error(`request: ${error}`));
  request.on("end", () => {
    response.setHeader("X-Answer", `${name} ${request.url.split("?")[1]}`);
    response.end("node\n");
  });
});
server.keepAliveTimeout = 300_000;
server.on("clientError", (error, socket) => {
  console.error(`client: ${error}`);
  socket.destroy();
});
server.on("error", (error) => console.error(`server: ${error}`));
server.listen(Number(port), () => console.log("ready"));
