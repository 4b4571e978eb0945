// The backend of a shop; it knows nothing of contexts: backend.js NAME PORT live|sale
//
//   /parts/offers     a piece of HTML
//   /api/badge.svg    a picture
//   /api/basket       JSON: who answers, and the headers that came
//   /api/order        takes a form, answers with a page, and sets a cookie of its own
//   /api/prices.csv   a file to download
//   /socket           a WebSocket: says the stock, then sends back what it hears; each after "NAME: "

const http = require("http");
const { WebSocketServer } = require("ws");

const [name, port, version] = process.argv.slice(2);
const sale = version === "sale";

const goods = [
  { name: "Pears", colour: "#c9d86a", price: 240, now: 180 },
  { name: "Plums", colour: "#a98bd0", price: 320, now: 240 },
  { name: "Apples", colour: "#ef9a8a", price: 210, now: 150 },
];

const euros = (cents) => `€ ${(cents / 100).toFixed(2)}`;

const price = (good) => (sale ? `<s>${euros(good.price)}</s> <b>${euros(good.now)}</b>` : `<b>${euros(good.price)}</b>`);

const offers = () => `<section id="offers" class="${sale ? "sale" : "plain"}">
  <h2>${sale ? "Autumn sale" : "Today’s fruit"} <img id="badge" src="/api/badge.svg" alt=""></h2>
  <ul>${goods
    .map((good) => `<li><i style="background:${good.colour}"></i>${good.name}<br>${price(good)}<small>per kilo</small></li>`)
    .join("")}</ul>
</section>
`;

const badge = () => {
  const text = `backend: ${name}`;
  const width = 16 + 7.4 * text.length;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="22"><rect width="${width}" height="22" rx="11"
    fill="${sale ? "#b3261e" : "#5b6b5f"}"/><text x="${width / 2}" y="15" fill="#fff" font-family="DejaVu Sans, sans-serif"
    font-size="12" text-anchor="middle">${text}</text></svg>`;
};

// A quarter of a megabyte, different for each name.
const prices = () => Buffer.from(`served by ${name};`.padEnd(64, ".").slice(0, 63) + "\n").toString().repeat(4096);

const page = (text) => `<!doctype html><title>Order</title><link rel="stylesheet" href="/style.css"><main><p id="order">${text}</p></main>`;

function order(form, response) {
  const [amount, fruit] = ["amount", "fruit"].map((field) => form.get(field).replace(/[^\w ]/g, ""));
  response.setHeader("set-cookie", `last-order=${fruit}; Path=/`);
  send(response, "text/html; charset=utf-8", page(`${name}: ${amount} × ${fruit}`));
}

function send(response, type, body) {
  response.setHeader("content-type", type);
  response.end(body);
}

const server = http.createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const html = "text/html; charset=utf-8";
  switch (`${request.method} ${request.url}`) {
    case "GET /parts/offers":
      return send(response, html, offers());
    case "GET /api/badge.svg":
      return send(response, "image/svg+xml", badge());
    case "GET /api/basket":
      return send(response, "application/json", JSON.stringify({ served_by: name, headers: request.headers }));
    case "POST /api/order":
      return order(new URLSearchParams(Buffer.concat(pieces).toString()), response);
    case "GET /api/prices.csv":
      response.setHeader("content-disposition", 'attachment; filename="prices.csv"');
      return send(response, "text/csv", prices());
    default:
      response.statusCode = 404;
      return send(response, "text/plain", `${name}: nothing here\n`);
  }
});

new WebSocketServer({ server, path: "/socket" }).on("connection", (socket) => {
  socket.send(`${name}: 12 kilos`);
  socket.on("message", (data) => socket.send(`${name}: ${data}`));
});

server.listen(Number(port), "0.0.0.0", () => console.log("ready"));
