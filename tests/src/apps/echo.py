"""An HTTP/1.1 app that reports what it was sent: echo.py NAME PORT... [--dual-stack] [--reuse-port] [--file PATH] [--tls CERT KEY]

Any path answers with a JSON report of the request. Special paths:

  /whoami             name, number of the connection, number of the request on it, address of the client
  /status/N           status N; 304 comes with a Content-Length and, as it must, without a body
  /slow?ms=N          a report after N ms
  /chunked?parts=N    N chunks and two trailers
  /until-close        a body that ends with the connection
  /close              a report with "Connection: close"
  /interim            103, then a report
  /refuse             417 to an "Expect: 100-continue", without reading the body
  /early              answers before it reads the body
  /file               the file given with --file
  /stall              reads the request, never answers
  /events             one event, and then the stream stays open
  anything with "Upgrade: echo": 101, then sends back every byte until the client half-closes, then "bye NAME"
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import socket
import ssl
import urllib.parse

connections = itertools.count()


class Request:
    def __init__(self, head):
        start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.target, self.version = start.split(" ")
        self.headers = [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines)]
        url = urllib.parse.urlsplit(self.target)
        self.path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query))
        self.digest = hashlib.sha256()
        self.length = 0
        self.trailers = []

    def header(self, name):
        return ", ".join(value for key, value in self.headers if key.lower() == name)

    async def read_body(self, reader):
        if "chunked" in self.header("transfer-encoding").lower():
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await self.take(reader, size)
                await reader.readexactly(2)
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                self.trailers.append(line.decode("latin-1").strip())
        else:
            await self.take(reader, int(self.header("content-length") or 0))

    async def take(self, reader, length):
        while length:
            piece = await reader.read(min(length, 1 << 18))
            if not piece:
                raise EOFError("the body is short")
            self.digest.update(piece)
            self.length += len(piece)
            length -= len(piece)

    def report(self):
        return {
            "served_by": options.name,
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body_length": self.length,
            "body_sha256": self.digest.hexdigest(),
            "trailers": self.trailers,
        }


async def serve(reader, writer):
    connection = next(connections)
    try:
        for number in itertools.count():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            if not await answer(Request(head), connection, number, reader, writer):
                break
    except (ValueError, EOFError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
        send(writer, 400, f"{type(error).__name__}\n".encode(), ["Connection: close"])
    except ConnectionError:
        pass
    finally:
        writer.close()


async def answer(request, connection, number, reader, writer):
    """Answers one request; False when the connection is to be closed."""
    path, head_only = request.path, request.method == "HEAD"
    if request.header("expect").lower() == "100-continue":
        if path == "/refuse":
            send(writer, 417, b"refused\n", ["Connection: close"])
            return False
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if path == "/early":
        send(writer, 200, b"early\n")
        await writer.drain()
        await request.read_body(reader)
        return True
    await request.read_body(reader)

    if request.header("upgrade") == "echo":
        await echo(reader, writer)
        return False
    if path == "/whoami":
        peer = writer.get_extra_info("peername")
        send_json(
            writer,
            {"served_by": options.name, "connection": connection, "request": number, "peer": peer[0], "port": peer[1]},
        )
    elif path.startswith("/status/"):
        status = int(path.rpartition("/")[2])
        if status == 204:
            writer.write(b"HTTP/1.1 204 Nothing\r\nServer: echo\r\n\r\n")
        elif status == 304:
            writer.write(b"HTTP/1.1 304 Same\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n")
        else:
            send(writer, status, f"{status}\n".encode(), head_only=head_only)
    elif path == "/chunked":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Name\r\n\r\n")
        for part in range(int(request.query.get("parts", 3))):
            piece = f"part {part} of {options.name}\n".encode()
            writer.write(b"%x;note=\"a;b\"\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(f"0\r\nX-Sum: 1\r\nX-Name: {options.name}\r\n\r\n".encode())
    elif path == "/until-close":
        writer.write(f"HTTP/1.1 200 OK\r\nServer: echo\r\n\r\nuntil the end of {options.name}\n".encode())
        return False
    elif path == "/file":
        with open(options.file, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            while piece := file.read(1 << 18):
                writer.write(piece)
                await writer.drain()
    elif path == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: open\n\n")
        await reader.read()
        return False
    elif path == "/stall":
        await reader.read()
        return False
    else:
        if path == "/slow":
            await asyncio.sleep(int(request.query["ms"]) / 1000)
        if path == "/interim":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        close = path == "/close" or request.header("connection").lower() == "close"
        send_json(writer, request.report(), ["Connection: close"] if close else [], head_only)
        return not close
    await writer.drain()
    return True


async def echo(reader, writer):
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    writer.write(f"bye {options.name}\n".encode())
    await writer.drain()


def send_json(writer, value, headers=(), head_only=False):
    body = json.dumps(value).encode() + b"\n"
    send(writer, 200, body, ["Content-Type: application/json", *headers], head_only)


def send(writer, status, body, headers=(), head_only=False):
    lines = [f"HTTP/1.1 {status} Status", "Server: echo", f"Content-Length: {len(body)}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode() + (b"" if head_only else body))


async def main():
    servers = []
    for port in options.ports:
        how = {"limit": 1 << 20, "backlog": 4096, "ssl": tls(*options.tls) if options.tls else None}
        if options.reuse_port:
            how["reuse_port"] = True
        if options.dual_stack:
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            servers.append(await asyncio.start_server(serve, sock=listener, **how))
        else:
            servers.append(await asyncio.start_server(serve, port=port, reuse_address=True, **how))
    print("ready")
    await asyncio.gather(*(server.serve_forever() for server in servers))


def tls(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


arguments = argparse.ArgumentParser()
arguments.add_argument("name")
arguments.add_argument("ports", nargs="+", type=int)
arguments.add_argument("--dual-stack", action="store_true")
arguments.add_argument("--reuse-port", action="store_true")
arguments.add_argument("--file")
arguments.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
options = arguments.parse_args()
asyncio.run(main())
