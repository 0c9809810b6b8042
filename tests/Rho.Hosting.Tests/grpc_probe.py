"""Calls health and reflection of a server with Python's gRPC and stubs generated from the standard protos.

usage: grpc_probe.py PROTOS TARGET -> one JSON object on stdout
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import grpc

protos, target = pathlib.Path(sys.argv[1]), sys.argv[2]
out = tempfile.mkdtemp()
files = [str(p) for p in protos.rglob("*.proto")]
subprocess.run(
    ["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_out={out}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", *files],
    check=True)
# The generated packages are named grpc.*, as the runtime's own package is: join the two.
grpc.__path__.append(str(pathlib.Path(out) / "grpc"))
from grpc.health.v1 import health_pb2, health_pb2_grpc
from grpc.reflection.v1 import reflection_pb2 as v1, reflection_pb2_grpc as v1_grpc
from grpc.reflection.v1alpha import reflection_pb2 as alpha, reflection_pb2_grpc as alpha_grpc
from google.protobuf import descriptor_pb2

result = {}
with grpc.insecure_channel(target) as channel:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", "rho.hosting.tests.Probe", "grpc.health.v1.Health"]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
        result["health:" + name] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    try:
        health.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=20)
    except grpc.RpcError as error:
        result["health:no.such"] = error.code().name
    watch = health.Watch(health_pb2.HealthCheckRequest(service="no.such"), timeout=20)
    result["watch:no.such"] = health_pb2.HealthCheckResponse.ServingStatus.Name(next(watch).status)
    watch.cancel()

    for kind, pb, stubs in [("v1", v1, v1_grpc), ("v1alpha", alpha, alpha_grpc)]:
        requests = [
            pb.ServerReflectionRequest(list_services="*"),
            pb.ServerReflectionRequest(file_containing_symbol="rho.hosting.tests.Probe.Unary"),
            pb.ServerReflectionRequest(file_containing_symbol="rho.hosting.tests.ProbeResponse.Nested"),
            pb.ServerReflectionRequest(file_by_filename="no.such"),
        ]
        answers = list(stubs.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests), timeout=20))
        result[kind + ":services"] = [s.name for s in answers[0].list_services_response.service]
        described = [descriptor_pb2.FileDescriptorProto.FromString(b) for b in answers[1].file_descriptor_response.file_descriptor_proto]
        result[kind + ":file"] = described[0].name
        result[kind + ":methods"] = [m.name for m in described[0].service[0].method]
        result[kind + ":nested"] = len(answers[2].file_descriptor_response.file_descriptor_proto)
        result[kind + ":error"] = answers[3].error_response.error_code
print(json.dumps(result))
