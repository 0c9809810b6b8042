"""Python's gRPC with stubs generated from the contract. Usage: grpc_client.py TARGET PROTOS; prints "ok"."""
import math
import subprocess
import sys
import tempfile

import grpc

target, protos = sys.argv[1:]
out = tempfile.mkdtemp()
subprocess.run(["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_out={out}", "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "rho/inference/v1/inference.proto"], check=True)
sys.path.insert(0, out)
from rho.inference.v1 import inference_pb2 as pb, inference_pb2_grpc as stubs

with grpc.insecure_channel(target) as channel:
    client = stubs.InferenceStub(channel)
    assert client.ListModels(pb.ListModelsRequest(), timeout=60).models[0].context_length == 512
    tokens = client.Tokenize(pb.TokenizeRequest(text="What is 12 + 30?"), timeout=60).tokens
    settings = pb.SamplingParameters(max_tokens=15, temperature=0, log_probabilities=3)
    parts = list(client.Generate(pb.GenerateRequest(tokens=pb.TokenIds(ids=tokens), sampling=settings, echo=True), timeout=60))
    scored = [t for p in parts for t in p.tokens]
    assert len(scored) == len(tokens) + 15, len(scored)
    assert not scored[0].HasField("log_probability") and scored[1].log_probability < 0
    assert parts[-1].finish_reason == pb.FINISH_REASON_LENGTH and parts[-1].usage.prompt_tokens == len(tokens)

    # Scoring prompt and continuation again gives the numbers that came with the continuation.
    score = next(client.Score(pb.ScoreRequest(inputs=[pb.ScoreInput(tokens=pb.TokenIds(ids=[t.id for t in scored]))], top=2), timeout=60))
    assert math.isnan(score.log_probabilities[0])
    for a, b in zip(scored[1:], score.log_probabilities[1:]):
        assert abs(a.log_probability - b) < 1e-6, (a.log_probability, b)
    assert all(score.greedy[len(tokens):])

    chat = pb.GenerateRequest(chat=pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="Hi")]), sampling=pb.SamplingParameters(max_tokens=30, regex="(yes|no)[.]"))
    assert "".join(p.text for p in client.Generate(chat, timeout=60)) in ("yes.", "no.")

    call = client.Generate(pb.GenerateRequest(text="The", sampling=pb.SamplingParameters(max_tokens=400, ignore_eos=True)), timeout=60)
    next(call)
    call.cancel()
    try:
        list(client.Generate(pb.GenerateRequest(text="a", model="nobody"), timeout=60))
        raise AssertionError("an unknown model was served")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
print("ok")
