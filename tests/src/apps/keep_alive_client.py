"""Asks over one connection, in turns without and with a header: keep_alive_client.py ADDRESS PORT HEADER VALUE

Prints a line for each answer: the local port and who answered. Ends when the connection does.
"""

import http.client
import json
import sys
import time

address, port, name, value = sys.argv[1:]
connection = http.client.HTTPConnection(address, int(port), timeout=20)
while True:
    for headers in ({}, {name: value}):
        connection.request("GET", "/whoami", headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        print(connection.sock.getsockname()[1], "matching" if headers else "plain", answer["served_by"])
        time.sleep(0.02)
