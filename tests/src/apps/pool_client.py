"""Asks over one connection, in turns without and with a header, and makes a new one when it ends:
pool_client.py ADDRESS PORT HEADER VALUE [CA_FILE]

With CA_FILE over TLS, to pod.test. Prints a line for each answer: the local port and who answered; "ended" when the
connection did.
"""

import http.client
import json
import ssl
import sys
import time

address, port, name, value = sys.argv[1:5]
context = ssl.create_default_context(cafile=sys.argv[5]) if len(sys.argv) > 5 else None


def connect():
    connection = http.client.HTTPConnection(address, int(port), timeout=20)
    connection.connect()
    if context:
        connection.sock = context.wrap_socket(connection.sock, server_hostname="pod.test")
    return connection


connection = connect()
while True:
    for headers in ({}, {name: value}):
        while True:
            try:
                connection.request("GET", "/whoami", headers=headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
                break
            except (http.client.HTTPException, OSError):
                print("ended", flush=True)
                connection = connect()
        kind = "matching" if headers else "plain"
        print(connection.sock.getsockname()[1], kind, answer["served_by"], flush=True)
        time.sleep(0.02)
