"""A server with a thread and blocking reads for each connection, which tells how they end: ends.py PORT

Answers with JSON that says "app"; prints "end" when a client finished, "error ..." for anything else.
"""

import json
import socket
import sys
import threading

BODY = json.dumps({"served_by": "app"}).encode() + b"\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def serve(connection):
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
            while b"\r\n\r\n" in received:
                received = received.partition(b"\r\n\r\n")[2]
                connection.sendall(ANSWER)
        print("end" if not received else f"error: ended with {received!r}", flush=True)
        connection.close()
    except OSError as error:
        print("error", error, flush=True)


listener = socket.create_server(("", int(sys.argv[1])), backlog=1024)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
