// Asks over one HTTP/2 connection without TLS, in turns without and with a header, and makes a new one when it ends:
// pool_client_http2.js ADDRESS PORT HEADER VALUE
//
// Prints a line for each answer: the local port and who answered; "ended" when the connection did.
"use strict";
const http2 = require("node:http2");

const [address, port, name, value] = process.argv.slice(2);
let session;

function connect() {
  session = http2.connect(`http://${address}:${port}`);
  session.on("error", () => {});
  session.on("close", () => console.log("ended"));
}

function ask(matching) {
  if (session === undefined || session.closed || session.destroyed) connect();
  const stream = session.request({ ":path": "/whoami", ...(matching ? { [name]: value } : {}) });
  let text = "";
  let again = matching;
  stream.on("data", (piece) => { text += piece; });
  stream.on("end", () => {
    console.log(session.socket.localPort, matching ? "matching" : "plain", JSON.parse(text).served_by);
    again = !matching;
  });
  stream.on("error", () => {});
  stream.on("close", () => {
    setTimeout(() => ask(again), 20);
  });
}

ask(false);
