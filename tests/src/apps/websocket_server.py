"""Sends back each message, text with its name in front: websocket_server.py NAME PORT..."""

import asyncio
import sys

import websockets

name, *ports = sys.argv[1:]


async def echo(socket, _path):
    async for message in socket:
        await socket.send(f"{name}: {message}" if isinstance(message, str) else message)


async def main():
    for port in ports:
        await websockets.serve(echo, None, int(port), max_size=1 << 24, reuse_address=True)
    print("ready")
    await asyncio.Future()


asyncio.run(main())
