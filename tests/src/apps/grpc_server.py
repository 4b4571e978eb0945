"""A gRPC server with reflection: grpc_server.py NAME PORT...

What a call does is in the text of its (first) message:

  status          INVALID_ARGUMENT with details and trailers
  sleep           the answer comes after `number` ms, or not at all when the call is over before; says so on stdout
  anything else   Unary: the same again; Down: `number` messages; Up: what came, counted; Both: each message again

Every answer is signed with NAME in its initial metadata.
"""

import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from lab_proto import KINDS, Message

name, *ports = sys.argv[1:]


def begin(message, context):
    """What all kinds of calls have in common. False when there is nothing more to do."""
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata([("served-by", name), ("seen-bin", sent.get("some-bin", b""))])
    context.set_trailing_metadata([("trailing", f"of {name}"), ("trailing-bin", b"\0\1\xff")])
    if message.text == "status":
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=f"asked of {name}", domain="lab"))
        status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no: 100 % ü", details=[detail])
        context.abort_with_status(rpc_status.to_status(status))
    if message.text == "sleep":
        over = threading.Event()
        context.add_callback(over.set)
        left = context.time_remaining()
        print(f"sleeps, deadline {'none' if left is None or left > 1e6 else 'some'}", flush=True)
        if over.wait(message.number / 1000):
            print(f"call over: {message.data.decode()}", flush=True)
            return False
    return True


def unary(message, context):
    begin(message, context)
    return Message(text=message.text, number=message.number + 1, data=message.data)


def down(message, context):
    if begin(message, context):
        for number in range(message.number):
            yield Message(text=name, number=number, data=message.data)


def up(messages, context):
    count = size = 0
    for message in messages:
        if count == 0:
            begin(message, context)
        count += 1
        size += len(message.data)
    return Message(text=f"{name} got {count}", number=size)


def both(messages, context):
    for number, message in enumerate(messages):
        if number == 0 and not begin(message, context):
            return
        yield Message(text=message.text, number=number, data=message.data)


handlers = {}
for kind, (streams_up, streams_down) in KINDS.items():
    function = {"Unary": unary, "Down": down, "Up": up, "Both": both}[kind]
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[streams_up, streams_down]
    handlers[kind] = make(function, Message.FromString, Message.SerializeToString)

server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Lab", handlers),))
reflection.enable_server_reflection(["lab.Lab", reflection.SERVICE_NAME], server)
for port in ports:
    server.add_insecure_port(f"0.0.0.0:{port}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
