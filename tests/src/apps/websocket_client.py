"""Talks to a WebSocket server and prints what came back: websocket_client.py URL [HEADER: VALUE]...

The certificate of a wss: URL is not verified: who shows which is looked at elsewhere."""

import asyncio
import json
import os
import ssl
import sys

import websockets

url, *headers = sys.argv[1:]


async def main():
    fields = [tuple(part.strip() for part in header.split(":", 1)) for header in headers]
    how = {}
    if url.startswith("wss:"):
        how["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        how["ssl"].check_hostname, how["ssl"].verify_mode = False, ssl.CERT_NONE
    async with websockets.connect(url, extra_headers=fields, max_size=1 << 24, **how) as socket:
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
