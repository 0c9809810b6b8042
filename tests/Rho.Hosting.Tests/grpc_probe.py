"""Calls health and reflection of a server with Python's gRPC and stubs generated from the standard protos.

usage: grpc_probe.py DESCRIPTORS TARGET -> one JSON object on stdout; DESCRIPTORS is a FileDescriptorSet of them
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_database, descriptor_pb2, descriptor_pool

descriptors, target = pathlib.Path(sys.argv[1]), sys.argv[2]
out = tempfile.mkdtemp()
files = [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file]
subprocess.run(
    ["protoc", f"--descriptor_set_in={descriptors}", f"--python_out={out}", f"--grpc_out={out}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", *files],
    check=True)
# Generated packages are named grpc.*, as the runtime's own package is: join the two.
sys.path.append(out)
grpc.__path__.append(str(pathlib.Path(out) / "grpc"))
import health_pb2
import health_pb2_grpc
from grpc.reflection.v1 import reflection_pb2 as v1, reflection_pb2_grpc as v1_grpc
from grpc.reflection.v1alpha import reflection_pb2 as alpha, reflection_pb2_grpc as alpha_grpc

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
        # What a command-line client does before it calls: every service that is listed can be described, with all that it imports.
        asked = [pb.ServerReflectionRequest(file_containing_symbol=name) for name in result[kind + ":services"]]
        files = descriptor_database.DescriptorDatabase()
        for answer in stubs.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked), timeout=20):
            for file in answer.file_descriptor_response.file_descriptor_proto:
                files.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
        pool = descriptor_pool.DescriptorPool(files)
        result[kind + ":described"] = {name: len(pool.FindServiceByName(name).methods) for name in result[kind + ":services"]}
print(json.dumps(result))
