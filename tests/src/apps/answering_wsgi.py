"""Answers with who it is and the query of the request. A WSGI app."""

import os

NAME = os.environ["APP_NAME"]


def app(environ, start_response):
    answer = f"{NAME} {environ['QUERY_STRING']}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5"), ("X-Answer", answer)])
    return [b"wsgi\n"]
