"""Looks at how TLS ends: with the word for it (close_notify), or ragged, without it.

  tls_ends.py serve PORT CERT KEY        prints how each client ended; "leave clean\\n" or "leave ragged\\n" makes it
                                         answer "bye" and end so, anything else is answered when the client has ended cleanly
  tls_ends.py ask HOST PORT TEXT END     says TEXT, ends its half (END: clean, ragged or not), prints what it got
"""

import json
import socket
import ssl
import sys
import threading


class Tls:
    """TLS under control: each half can be ended with or without a word."""

    def __init__(self, sock, context, **how):
        # What Python hides by default is what is looked at here.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **how)
        self.run(self.tls.do_handshake)

    def run(self, step, *arguments):
        while True:
            try:
                return step(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                piece = self.sock.recv(1 << 16)
                self.incoming.write(piece) if piece else self.incoming.write_eof()
            finally:
                self.flush()

    def flush(self):
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def say(self, data):
        self.run(self.tls.write, data)

    def hear(self, line=False):
        """All that comes, or a line of it, and how it ended."""
        data = b""
        try:
            while not (line and data.endswith(b"\n")):
                piece = self.run(self.tls.read, 1 << 16)
                if not piece:
                    return data, "clean"
                data += piece
            return data, "not"
        except ssl.SSLZeroReturnError:
            return data, "clean"
        except ssl.SSLError as error:
            # OpenSSL has no error of its own for a ragged end of what it reads.
            return data, "ragged" if "UNEXPECTED_EOF" in str(error) else "broken"
        except OSError:
            return data, "broken"

    def end(self, how):
        if how == "clean":
            try:
                self.tls.unwrap()
            except (ssl.SSLWantReadError, ssl.SSLError):
                pass
            self.flush()
        if how != "not":
            self.sock.shutdown(socket.SHUT_WR)


def serve(port, certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("0.0.0.0", int(port))) as listener:
        print("ready")
        while True:
            threading.Thread(target=attend, args=(listener.accept()[0], context), daemon=True).start()


def attend(sock, context):
    try:
        client = Tls(sock, context, server_side=True)
        line, end = client.hear(line=True)
        if not line:
            return
        command, _, how = line.decode().strip().partition(" ")
        if command == "leave":
            client.say(b"bye\n")
            client.end(how)
        rest, end = client.hear() if end == "not" else (b"", end)
        print(f"{(line + rest).decode().strip()!r} ended {end}")
        if end == "clean" and command != "leave":
            client.say(b"heard\n")
            client.end("clean")
    except (ssl.SSLError, OSError) as error:
        print(f"failed: {error}")
    sock.close()


def ask(host, port, text, end):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server = Tls(socket.create_connection((host, int(port)), 20), context, server_hostname="pod.test")
    server.say(text.encode() + b"\n")
    server.end(end)
    heard, ended = server.hear()
    print(json.dumps({"heard": heard.decode(), "ended": ended}))


{"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
