"""Sends HTTP/2 requests as they are, right or wrong: http2_raw.py HOST PORT REQUESTS

REQUESTS is JSON: [{"headers": [[NAME, VALUE]...], "body": TEXT}...], each on a connection of its own. Prints in JSON, for
each, the status of the answer, or what came in place of one: "reset", "closed"."""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions

host, port, requests = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])


def ask(request):
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="latin-1"
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    with socket.create_connection((host, port), timeout=20) as peer:
        body = request.get("body")
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request["headers"]]
        connection.send_headers(1, headers, end_stream=body is None)
        if body is not None:
            connection.send_data(1, body.encode(), end_stream=True)
        peer.sendall(connection.data_to_send())
        while data := peer.recv(1 << 16):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    return dict(event.headers)[":status"]
                if isinstance(event, h2.events.StreamReset):
                    return "reset"
                if isinstance(event, h2.events.ConnectionTerminated):
                    return "closed"
            peer.sendall(connection.data_to_send())
    return "closed"


print(json.dumps([ask(request) for request in requests]))
