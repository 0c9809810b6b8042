"""Calls compat.v1.Echo with Python's gRPC and checks what comes back. usage: echo_client.py FOLDER_OF_PROTO TARGET"""
import subprocess
import sys
import tempfile
import time

import grpc

out = tempfile.mkdtemp()
subprocess.run(
    ["protoc", f"-I{sys.argv[1]}", f"--python_out={out}", f"--grpc_out={out}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "echo.proto"],
    check=True)
sys.path.insert(0, out)
from echo_pb2 import EchoRequest
from echo_pb2_grpc import EchoStub

LIMIT = 30


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was to fail")


options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
with grpc.insecure_channel(sys.argv[2], options=options) as channel:
    echo = EchoStub(channel)

    response, call = echo.Unary.with_call(EchoRequest(payload=b"abc"), timeout=LIMIT, metadata=[("name", "python"), ("bytes-bin", b"\x00\xff")])
    assert response.payload == b"abc"
    assert dict(call.initial_metadata())["greeting"] == "python"
    assert dict(call.initial_metadata())["bytes-bin"] == b"\x00\xff"
    assert dict(call.trailing_metadata())["farewell"] == "python"

    answers = list(echo.Expand(EchoRequest(payload=b"x" * 1000, repeat=500), timeout=LIMIT))
    assert [a.index for a in answers] == list(range(500))

    collected = echo.Collect((EchoRequest(payload=bytes([i])) for i in range(200)), timeout=LIMIT)
    assert collected.index == 200 and collected.payload == bytes(range(200))

    answers = list(echo.Chat((EchoRequest(payload=b"y" * i) for i in range(300)), timeout=LIMIT))
    assert [len(a.payload) for a in answers] == list(range(300))

    error = failure(lambda: echo.Unary(EchoRequest(fail_code=9, fail_detail="naïve: 100 %"), timeout=LIMIT))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "naïve: 100 %", error
    assert dict(error.trailing_metadata())["reason"] == "asked"
    error = failure(lambda: list(echo.Expand(EchoRequest(repeat=3, fail_code=8, fail_detail="full"), timeout=LIMIT)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error

    started = time.monotonic()
    error = failure(lambda: echo.Unary(EchoRequest(delay_ms=60000), timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - started < 10, error

    stream = echo.Expand(EchoRequest(repeat=1, delay_ms=60000))
    next(stream)
    stream.cancel()
    assert failure(lambda: next(stream)).code() == grpc.StatusCode.CANCELLED

    big = b"0123456789abcdef" * (4 << 20)
    assert echo.Unary(EchoRequest(payload=big), timeout=60).payload == big
    text = b"compress me " * 100000
    assert echo.Unary(EchoRequest(payload=text), timeout=LIMIT, compression=grpc.Compression.Gzip).payload == text
print("ok")
