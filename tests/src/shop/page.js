// What the page asks for once it is there.
const show = (id, text) => (document.getElementById(id).textContent = text);

fetch("/api/basket")
  .then((response) => response.json())
  .then((basket) => show("basket", `${basket.served_by}: empty`));

const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/socket`);
socket.onmessage = (message) => show("stock", message.data);
socket.onclose = () => show("stock", "closed");
