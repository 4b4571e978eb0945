"""Answers with who it is and the query of the request. An ASGI app."""

import os

NAME = os.environ["APP_NAME"].encode()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"5"), (b"x-answer", NAME + b" " + scope["query_string"])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"asgi\n"})
