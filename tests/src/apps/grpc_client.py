"""A gRPC client that prints in JSON what it saw: grpc_client.py ADDRESS KEY=VALUE ACTION [NUMBER]

KEY=VALUE is sent as metadata with every call. Actions:

  dialog       reflection, all four kinds of calls, a status with details, a deadline, a cancellation
  calls N      N unary calls, up to 100 at a time
  down N       N messages of 1 MiB from the server, which are not taken for the first second
  up N         N messages of 1 MiB to the server
"""

import json
import sys
import threading
import time
import time

import grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from lab_proto import Message

address, pair, action, *numbers = sys.argv[1:]
number = int(numbers[0]) if numbers else 0
metadata = [tuple(pair.split("=", 1)), ("some-bin", b"\0\xfe,")]
channel = grpc.insecure_channel(address)


def method(kind, make):
    return make(f"/lab.Lab/{kind}", Message.SerializeToString, Message.FromString)


unary = method("Unary", channel.unary_unary)
down = method("Down", channel.unary_stream)
up = method("Up", channel.stream_unary)
both = method("Both", channel.stream_stream)


def fields(pairs):
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in pairs or ()}


def end(call):
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": fields(call.initial_metadata()),
        "trailing": fields(call.trailing_metadata()),
    }


def dialog():
    said = {}
    message, call = unary.with_call(Message(text="hello", number=1, data=b"\0x"), metadata=metadata)
    said["unary"] = {"text": message.text, "number": message.number, **end(call)}

    call = down(Message(text="go", number=5), metadata=metadata)
    said["down"] = {"numbers": [message.number for message in call], **end(call)}

    messages = (Message(text="up", data=b"x" * 1000) for _ in range(7))
    message, call = up.with_call(messages, metadata=metadata)
    said["up"] = {"text": message.text, "number": message.number, **end(call)}

    # One message at a time, each sent only when the one before has come back.
    turn = threading.Semaphore(1)
    def questions():
        for text in "abc":
            turn.acquire()
            yield Message(text=text)
    call, texts = both(questions(), metadata=metadata), []
    for message in call:
        texts.append(message.text)
        turn.release()
    said["both"] = {"texts": texts, **end(call)}

    try:
        unary(Message(text="status"), metadata=metadata)
    except grpc.RpcError as error:
        detail = error_details_pb2.ErrorInfo()
        rpc_status.from_call(error).details[0].Unpack(detail)
        said["status"] = {"reason": detail.reason, **end(error)}

    try:
        unary(Message(text="sleep", number=60000, data=b"deadline"), metadata=metadata, timeout=1)
    except grpc.RpcError as error:
        said["deadline"] = error.code().name

    call = both(iter([Message(text="sleep", number=60000, data=b"cancelled")]), metadata=metadata)
    threading.Timer(0.5, call.cancel).start()
    try:
        list(call)
    except grpc.RpcError as error:
        said["cancelled"] = error.code().name

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([request]), metadata=metadata))
    said["services"] = sorted(service.name for service in answer.list_services_response.service)
    return said


def calls():
    slots, errors, served = threading.Semaphore(100), [], {}

    def done(call, count):
        if call.exception() is not None:
            errors.append(str(call.exception()))
        elif call.result().number != count + 1:
            errors.append(f"wrong answer to {count}")
        else:
            by = fields(call.initial_metadata())["served-by"]
            served[by] = served.get(by, 0) + 1
        slots.release()

    for count in range(number):
        slots.acquire()
        call = unary.future(Message(text="x", number=count), metadata=metadata, timeout=60)
        call.add_done_callback(lambda call, count=count: done(call, count))
    for _ in range(100):
        slots.acquire()
    return {"errors": errors[:10], "served": served}


def stream_down():
    call = down(Message(text="go", number=number, data=bytes(1 << 20)), metadata=metadata)
    size = len(next(call).data)
    time.sleep(1)
    return {"size": size + sum(len(message.data) for message in call), **end(call)}


def stream_up():
    piece = Message(text="up", data=bytes(1 << 20))
    message, call = up.with_call((piece for _ in range(number)), metadata=metadata)
    return {"size": message.number, **end(call)}


print(json.dumps({"dialog": dialog, "calls": calls, "down": stream_down, "up": stream_up}[action]()))
