// An HTTP/2 app without TLS that reports in JSON what it was sent: http2_server.js NAME PORT...
//
// Any path answers with a report of the request. Special paths:
//
//   /trailers             text and two trailers
//   /interim              103, then a report
//   /reset?code=N         RST_STREAM with this code before an answer; with &begun=MS, that long after its beginning
//   /early                a whole answer without reading the request, then RST_STREAM(NO_ERROR)
//   /goaway               GOAWAY, then the answer: the streams under way are still answered
//   /goaway-later         a report, and GOAWAY 300 ms later
//   /big?mib=N            N MiB
//   /hang                 never answers; says on stdout with which code the stream ends
//   /settings             the settings of the client, as they came
//   CONNECT with :protocol   sends back every byte, then "bye NAME"
//   CONNECT without          the same

"use strict";
const crypto = require("node:crypto");
const http2 = require("node:http2");

const [name, ...ports] = process.argv.slice(2);
const settings = {
  enableConnectProtocol: true,
  maxConcurrentStreams: 5000,
  maxHeaderListSize: 60000,
  initialWindowSize: 200000,
};
let sessions = 0;

function serve(stream, headers, flags, raw) {
  const url = new URL(headers[":path"] ?? "/", "http://pod.test");
  stream.on("error", () => {});
  if (headers[":method"] === "CONNECT") return echo(stream);
  if (url.pathname === "/trailers") return trailers(stream);
  if (url.pathname === "/reset") return reset(stream, url.searchParams);
  if (url.pathname === "/big") return big(stream, Number(url.searchParams.get("mib")));
  if (url.pathname === "/hang") {
    stream.on("close", () => console.log(`stream of ${headers[":path"]} ended with ${stream.rstCode}`));
    return console.log(`hangs ${headers[":path"]}`);
  }
  if (url.pathname === "/early") {
    stream.respond({ ":status": 200 });
    return stream.end("early\n", () => stream.close(http2.constants.NGHTTP2_NO_ERROR));
  }
  if (url.pathname === "/settings") {
    stream.respond({ ":status": 200 });
    return stream.end(JSON.stringify(stream.session.remoteSettings));
  }
  if (url.pathname === "/interim") stream.additionalHeaders({ ":status": 103, link: "</a>" });
  if (url.pathname === "/goaway") stream.session.close();
  if (url.pathname === "/goaway-later") later(stream.session);
  report(stream, flags, raw);
}

function later(session) {
  setTimeout(() => session.close(), 300);
}

function report(stream, flags, raw) {
  const digest = crypto.createHash("sha256");
  let length = 0;
  let trailers = [];
  stream.on("data", (piece) => {
    digest.update(piece);
    length += piece.length;
  });
  stream.on("trailers", (_, __, fields) => (trailers = fields));
  stream.on("end", () => {
    const pairs = [];
    for (let at = 0; at < raw.length; at += 2) pairs.push([raw[at], raw[at + 1]]);
    const said = {
      served_by: name,
      connection: stream.session.number,
      peer: stream.session.socket.remoteAddress,
      headers: pairs,
      ended_with_head: (flags & http2.constants.NGHTTP2_FLAG_END_STREAM) !== 0,
      body_length: length,
      body_sha256: digest.digest("hex"),
      trailers,
    };
    if (stream.closed) return;
    stream.respond({ ":status": 200, "content-type": "application/json", "set-cookie": ["a=1", "b=2"] });
    stream.end(JSON.stringify(said));
  });
}

function trailers(stream) {
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "1", "x-name": name }));
  stream.end(`text of ${name}\n`);
}

function reset(stream, parameters) {
  const close = () => stream.close(Number(parameters.get("code")));
  if (!parameters.has("begun")) return close();
  stream.respond({ ":status": 200 });
  stream.write("beginning", () => setTimeout(close, Number(parameters.get("begun"))));
}

function big(stream, mib) {
  stream.respond({ ":status": 200 });
  const piece = Buffer.alloc(1 << 20, name);
  const next = () => {
    while (mib > 0) {
      mib -= 1;
      if (!stream.write(piece)) return stream.once("drain", next);
    }
    stream.end();
  };
  next();
}

function echo(stream) {
  stream.respond({ ":status": 200 });
  stream.on("data", (piece) => stream.write(piece));
  stream.on("end", () => stream.end(`bye ${name}\n`));
}

let waiting = ports.length;
for (const port of ports) {
  const server = http2.createServer({ settings, maxSessionMemory: 2000 });
  server.on("session", (session) => {
    session.number = sessions++;
    session.on("error", () => {});
  });
  server.on("stream", serve);
  server.listen(Number(port), () => {
    waiting -= 1;
    if (waiting === 0) console.log("ready");
  });
}
