"""Sends back each message, text with its name in front: websocket_server.py NAME [CERT KEY] PORT..."""

import asyncio
import ssl
import sys

import websockets

name, *ports = sys.argv[1:]
tls = None
if not ports[0].isdigit():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ports.pop(0), ports.pop(0))


async def echo(socket, _path):
    async for message in socket:
        await socket.send(f"{name}: {message}" if isinstance(message, str) else message)


async def main():
    for port in ports:
        await websockets.serve(echo, None, int(port), max_size=1 << 24, reuse_address=True, ssl=tls)
    print("ready")
    await asyncio.Future()


asyncio.run(main())
