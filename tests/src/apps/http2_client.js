// An HTTP/2 client without TLS that does as it is told and prints in JSON what it saw: http2_client.js URL PLAN
//
// PLAN is JSON: {"requests": [REQUEST...], "together": bool, "storm": {"count": N, "headers": {...}}, "linger": MS}
// REQUEST: {"headers": {...}, "body": TEXT, "body_hex": HEX, "body_mib": N, "trailers": {...}, "open": bool, "cancel": CODE,
//           "stall": bool, "late": bool}
//
//   together  all requests at once, else one after the other
//   storm     before them, so many streams that are cancelled as soon as they are opened
//   linger    how long to wait for the end of the connection afterwards
//   body_hex  a body of any bytes
//   body_mib  a body of so many MiB
//   open      the request does not end before the answer has
//   cancel    RST_STREAM with this code 300 ms after the request
//   stall     nothing of the answer is read, and it is not waited for
//   late      not before the others have ended

"use strict";
const crypto = require("node:crypto");
const http2 = require("node:http2");

// How much of an answer is given as text; its length and hash are those of all of it.
const TEXT = 1 << 16;

const [url, text] = process.argv.slice(2);
const plan = JSON.parse(text);
const session = http2.connect(url, {
  maxSessionMemory: 2000,
  settings: { enablePush: false, initialWindowSize: 1 << 20, maxHeaderListSize: 50000 },
});
const said = { answers: [], goaway: null, closed: false, error: null, settings: null };
session.on("goaway", (code, last) => (said.goaway ??= { code, last }));
session.on("error", (error) => (said.error = String(error)));
session.on("close", () => (said.closed = true));
session.once("remoteSettings", (settings) => (said.settings = settings));

function ask(request) {
  return new Promise((resolve) => {
    const answer = { status: null, headers: null, interim: [], length: 0, text: "", trailers: null, code: null, error: null };
    const digest = crypto.createHash("sha256");
    const hasBody = request.body !== undefined || request.body_hex || request.body_mib || request.open;
    let stream;
    try {
      stream = session.request(request.headers, { endStream: !hasBody && request.headers[":method"] !== "CONNECT", waitForTrailers: Boolean(request.trailers) });
    } catch (error) {
      return resolve({ ...answer, error: String(error) });
    }
    stream.on("wantTrailers", () => stream.sendTrailers(request.trailers));
    stream.on("headers", (headers) => answer.interim.push([headers[":status"], headers.link]));
    stream.on("response", (headers, _, raw) => {
      answer.status = headers[":status"];
      answer.headers = raw ?? headers;
    });
    stream.on("trailers", (trailers) => (answer.trailers = { ...trailers }));
    stream.on("error", (error) => (answer.error = String(error)));
    if (request.stall) {
      stream.pause();
      resolve(answer);
    } else {
      stream.on("data", (piece) => {
        digest.update(piece);
        answer.length += piece.length;
        if (answer.text.length < TEXT) answer.text = (answer.text + piece).slice(0, TEXT);
      });
    }
    stream.on("close", () => {
      answer.code = stream.rstCode;
      answer.sha256 = digest.digest("hex");
      resolve(answer);
    });
    if (request.body !== undefined) stream.write(request.body);
    if (request.body_hex) stream.write(Buffer.from(request.body_hex, "hex"));
    if (request.body_mib) {
      let left = request.body_mib;
      const piece = Buffer.alloc(1 << 20, "x");
      const next = () => {
        while (left > 0) {
          left -= 1;
          if (!stream.write(piece)) return stream.once("drain", next);
        }
        stream.end();
      };
      next();
    } else if (hasBody && !request.open) {
      stream.end();
    } else if (request.open) {
      stream.on("end", () => stream.end());
    }
    if (request.cancel !== undefined) setTimeout(() => stream.close(request.cancel), 300);
  });
}

async function storm({ count, headers }) {
  for (let number = 0; number < count; number += 1) {
    const stream = session.request(headers);
    stream.on("error", () => {});
    stream.close(http2.constants.NGHTTP2_CANCEL);
    if (number % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
  }
}

async function main() {
  await new Promise((resolve) => session.once("remoteSettings", resolve).once("close", resolve));
  if (plan.storm) await storm(plan.storm);
  const early = plan.requests.filter((request) => !request.late);
  if (plan.together) {
    said.answers = await Promise.all(early.map(ask));
  } else {
    for (const request of early) said.answers.push(await ask(request));
  }
  for (const request of plan.requests.filter((request) => request.late)) said.answers.push(await ask(request));
  if (plan.linger) {
    const limit = Date.now() + plan.linger;
    while (!said.closed && Date.now() < limit) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  process.stdout.write(JSON.stringify(said), () => process.exit(0));
}

main();
