"""Serves compat.v1.Echo with Python's gRPC. usage: echo_server.py FOLDER_OF_PROTO -> prints the port; ends when stdin closes"""
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import grpc

out = tempfile.mkdtemp()
subprocess.run(
    ["protoc", f"-I{sys.argv[1]}", f"--python_out={out}", f"--grpc_out={out}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "echo.proto"],
    check=True)
sys.path.insert(0, out)
import echo_pb2
import echo_pb2_grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Echo(echo_pb2_grpc.EchoServicer):
    def start(self, context):
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata([("greeting", sent.get("name", "nobody")), ("bytes-bin", sent.get("bytes-bin", b""))])
        context.set_trailing_metadata([("farewell", sent.get("name", "nobody"))])

    def check(self, request, context):
        time.sleep(request.delay_ms / 1000)
        if request.fail_code:
            context.set_trailing_metadata([("reason", "asked")])
            context.abort(CODES[request.fail_code], request.fail_detail)

    def Unary(self, request, context):
        self.start(context)
        self.check(request, context)
        return echo_pb2.EchoResponse(payload=request.payload)

    def Expand(self, request, context):
        self.start(context)
        for index in range(request.repeat):
            yield echo_pb2.EchoResponse(payload=request.payload, index=index)
        self.check(request, context)

    def Collect(self, requests, context):
        self.start(context)
        payloads = []
        for request in requests:
            self.check(request, context)
            payloads.append(request.payload)
        return echo_pb2.EchoResponse(payload=b"".join(payloads), index=len(payloads))

    def Chat(self, requests, context):
        self.start(context)
        for index, request in enumerate(requests):
            self.check(request, context)
            yield echo_pb2.EchoResponse(payload=request.payload, index=index)


server = grpc.server(
    futures.ThreadPoolExecutor(8),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    compression=grpc.Compression.Gzip)
echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(0)
