"""A real scorer for tests: a tiny reference made here, and the rho executable as a process."""

import glob
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
SIZES = dict(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def executable():
    """The rho executable: RHO, or the newest build; None where there is none."""
    if os.environ.get("RHO"):
        return os.environ["RHO"]
    found = glob.glob(str(ROOT / "clients/Rho.Cli/bin/**/rho"), recursive=True) + glob.glob(str(ROOT / ".build/**/Rho.Cli/**/rho"), recursive=True)
    return max((path for path in found if os.access(path, os.X_OK)), key=os.path.getmtime, default=None)


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


def make_reference(directory, text, seed=1):
    """A checkpoint with random weights and a tokenizer trained on some text; returns its weights."""
    directory = Path(directory)
    source = directory.parent / "text.txt"
    source.write_text(text)
    subprocess.run([executable(), "tokenizer", "train", "--vocab", str(SIZES["vocab_size"]), "--out", str(directory), str(source)], check=True, capture_output=True, timeout=120)
    random = np.random.default_rng(seed)
    hidden, inner, head = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["hidden_size"] // SIZES["num_attention_heads"]
    shapes = {"model.embed_tokens.weight": (SIZES["vocab_size"], hidden), "lm_head.weight": (SIZES["vocab_size"], hidden)}
    for layer in range(SIZES["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        shapes.update({
            name + "self_attn.q_proj.weight": (hidden, hidden), name + "self_attn.k_proj.weight": (2 * head, hidden),
            name + "self_attn.v_proj.weight": (2 * head, hidden), name + "self_attn.o_proj.weight": (hidden, hidden),
            name + "mlp.gate_proj.weight": (inner, hidden), name + "mlp.up_proj.weight": (inner, hidden), name + "mlp.down_proj.weight": (hidden, inner)})
    weights = {name: random.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}
    norms = ["model.norm.weight"] + [f"model.layers.{i}.{n}.weight" for i in range(SIZES["num_hidden_layers"]) for n in ("input_layernorm", "post_attention_layernorm")]
    weights.update({name: random.uniform(0.5, 1.5, hidden).astype(np.float32) for name in norms})
    write_safetensors(directory / "model.safetensors", weights)
    config = dict(SIZES, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0,
                  max_position_embeddings=512, tie_word_embeddings=False, torch_dtype="float32")
    (directory / "config.json").write_text(json.dumps(config))
    return weights


CACHES = tempfile.TemporaryDirectory()  # where scorers cache by default: not where an earlier run left scores


class Scorer:
    """A scorer process. `kill` ends it as kill -9 does; `stop` in order."""

    def __init__(self, reference, *options):
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", XDG_CACHE_HOME=CACHES.name)
        self.process = subprocess.Popen(
            [executable(), "scorer", "--reference", str(reference), "--port", "0", "--http", "0", "--dtype", "float32", *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self._errors = []
        self._reading = threading.Thread(target=lambda: self._errors.extend(self.process.stderr), daemon=True)
        self._reading.start()
        starting = threading.Timer(120, self.process.kill)
        starting.start()
        try:
            for line in self.process.stdout:
                if line.startswith("listening on "):
                    self.address = line.split()[-1]
                    return
        finally:
            starting.cancel()
        self.close()
        raise RuntimeError("the scorer did not start: " + "".join(self._errors))

    def metric(self, name):
        """A metric's value, the sum over its series."""
        deadline = time.monotonic() + 60
        while not (http := re.search(r"listens for HTTP on (http://\S+)", "".join(self._errors))) and time.monotonic() < deadline:
            time.sleep(0.05)
        with urllib.request.urlopen(http[1].rstrip("/") + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(re.escape(name) + r"[ {]", line))

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self._reading.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
