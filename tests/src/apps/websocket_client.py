"""Talks to a WebSocket server and prints what came back: websocket_client.py URL [HEADER: VALUE]..."""

import asyncio
import json
import os
import sys

import websockets

url, *headers = sys.argv[1:]


async def main():
    fields = [tuple(part.strip() for part in header.split(":", 1)) for header in headers]
    async with websockets.connect(url, extra_headers=fields, max_size=1 << 24) as socket:
        texts = []
        for number in range(20):
            await socket.send(f"message {number}")
            texts.append(await socket.recv())
        large = os.urandom(3 << 20)
        await socket.send(large)
        same = await socket.recv() == large
        await (await socket.ping())
        await socket.close(1000)
        print(json.dumps({"texts": texts, "large_same": same, "close_code": socket.close_code}))


asyncio.run(main())
