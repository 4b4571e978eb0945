// Talks to a WebSocket server and prints what came back: websocket_client.js URL [HEADER: VALUE]...
const { randomBytes } = require("crypto");
const { once } = require("events");
const WebSocket = require("ws");

const [url, ...lines] = process.argv.slice(2);
const headers = Object.fromEntries(lines.map((line) => line.split(":", 2).map((part) => part.trim())));

async function main() {
  const socket = new WebSocket(url, { headers, maxPayload: 1 << 24 });
  await once(socket, "open");
  const texts = [];
  for (let number = 0; number < 20; number += 1) {
    socket.send(`message ${number}`);
    const [data] = await once(socket, "message");
    texts.push(data.toString());
  }
  const large = randomBytes(3 << 20);
  socket.send(large);
  const [back] = await once(socket, "message");
  socket.ping();
  await once(socket, "pong");
  socket.close(1000);
  const [code] = await once(socket, "close");
  console.log(JSON.stringify({ texts, large_same: large.equals(back), close_code: code }));
}

main();
