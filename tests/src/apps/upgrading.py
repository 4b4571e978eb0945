"""An ASGI app that says who it is and in which version of HTTP it was asked."""

import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    text = f"{os.environ['APP_NAME']} {scope['path']} {scope['http_version']}\n".encode()
    fields = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": text})
