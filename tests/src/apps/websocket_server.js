// Sends back each message, text with its name in front: websocket_server.js NAME PORT...
const { WebSocketServer } = require("ws");

const [name, ...ports] = process.argv.slice(2);

Promise.all(
  ports.map((port) => {
    const server = new WebSocketServer({ port: Number(port), host: "0.0.0.0", maxPayload: 1 << 24 });
    server.on("connection", (socket) => {
      socket.on("message", (data, isBinary) => {
        socket.send(isBinary ? data : `${name}: ${data}`, { binary: isBinary });
      });
    });
    return new Promise((listening) => server.on("listening", listening));
  }),
).then(() => console.log("ready"));
