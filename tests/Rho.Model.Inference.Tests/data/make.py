#!/usr/bin/python3
"""Small random models with the greedy continuations and log-probabilities that plain PyTorch gives in float64, without a cache.

Written from the models' published descriptions, without any of Rho's code. Run with Debian's python3-torch:
  /usr/bin/python3 make.py
Writes one folder a model: config.json, model.safetensors and expected.json.
"""
import json, math, os, struct
import torch

NEW_TOKENS = 60
PROMPTS = (3, 16, 45)
BASE = dict(vocab_size=131, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
            max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="float32")
KINDS = {
    "llama": dict(model_type="llama"),
    "llama-wide": dict(model_type="llama", head_dim=80, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=1, rope_theta=5000.0,
                       rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "mistral": dict(model_type="mistral", sliding_window=21, num_attention_heads=6, num_key_value_heads=2, head_dim=12),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True, num_attention_heads=2, head_dim=64, num_hidden_layers=1),
    "qwen3": dict(model_type="qwen3", num_attention_heads=5, num_key_value_heads=5, head_dim=24),
    "qwen2-window": dict(model_type="qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=0),
    "llama-linear": dict(model_type="llama", tie_word_embeddings=True, rope_scaling=dict(rope_type="linear", factor=4.0)),
    "llama-dynamic": dict(model_type="llama", rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama-yarn": dict(model_type="llama", rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=32)),
}


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, t in tensors.items():
        header[name] = dict(dtype="F32", shape=list(t.shape), data_offsets=[offset, offset + t.numel() * 4])
        offset += t.numel() * 4
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.float().contiguous().numpy().tobytes())


def shapes(c):
    d, i, h, n, k, v = (c[x] for x in ("hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads", "vocab_size"))
    yield "model.embed_tokens.weight", (v, d)
    for l in range(c["num_hidden_layers"]):
        s = "model.layers.%d." % l
        yield s + "input_layernorm.weight", (d,)
        for q, m in (("q", n), ("k", k), ("v", k)):
            yield s + "self_attn.%s_proj.weight" % q, (m * h, d)
            if c["model_type"] == "qwen2":
                yield s + "self_attn.%s_proj.bias" % q, (m * h,)
            if c["model_type"] == "qwen3" and q != "v":
                yield s + "self_attn.%s_norm.weight" % q, (h,)
        yield s + "self_attn.o_proj.weight", (d, n * h)
        yield s + "post_attention_layernorm.weight", (d,)
        yield s + "mlp.gate_proj.weight", (i, d)
        yield s + "mlp.up_proj.weight", (i, d)
        yield s + "mlp.down_proj.weight", (d, i)
    yield "model.norm.weight", (d,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (v, d)


def norm(x, w, eps):
    return x / torch.sqrt((x ** 2).mean(-1, keepdim=True) + eps) * w


def frequencies(c):
    """Angle per position of each pair, and the factor on cosines and sines."""
    f = [c["rope_theta"] ** (-2 * i / c["head_dim"]) for i in range(c["head_dim"] // 2)]
    s = c.get("rope_scaling")
    # Dynamic scaling changes nothing up to the context that the model was trained with.
    if not s or s["rope_type"] == "dynamic":
        return f, 1.0
    if s["rope_type"] == "linear":
        return [v / s["factor"] for v in f], 1.0
    turns = [s["original_max_position_embeddings"] * v / (2 * math.pi) for v in f]
    if s["rope_type"] == "llama3":
        shares = [min(max((t - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"]), 0), 1) for t in turns]
        scale = 1.0
    else:
        # YaRN (Peng et al.): pairs that turn more than 32 times keep their angle, those below 1 are interpolated; the ramp is over pairs.
        pair = lambda n: c["head_dim"] * math.log(s["original_max_position_embeddings"] / (n * 2 * math.pi)) / (2 * math.log(c["rope_theta"]))
        low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), c["head_dim"] - 1)
        shares = [1 - min(max((i - low) / (high - low), 0), 1) for i in range(len(f))]
        scale = 0.1 * math.log(s["factor"]) + 1
    return [v * share + v / s["factor"] * (1 - share) for v, share in zip(f, shares)], scale


def log_probabilities(c, p, tokens):
    """ln p of every next token. [len(tokens), vocab]"""
    t, n, k, h = len(tokens), c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    f, scale = frequencies(c)
    angle = torch.arange(t, dtype=torch.float64)[:, None] * torch.tensor(f, dtype=torch.float64)
    turn = torch.polar(torch.full_like(angle, scale), angle)[:, None]

    def rotate(x):
        y = torch.complex(x[..., : h // 2], x[..., h // 2:]) * turn
        return torch.cat([y.real, y.imag], -1)

    distance = torch.arange(t)[:, None] - torch.arange(t)
    hidden = (distance < 0) | (distance >= (c.get("sliding_window") or t))
    x = p["model.embed_tokens.weight"][tokens]
    for l in range(c["num_hidden_layers"]):
        w = lambda s: p.get("model.layers.%d.%s" % (l, s))
        y = norm(x, w("input_layernorm.weight"), c["rms_norm_eps"])
        project = lambda s, m: (y @ w("self_attn.%s_proj.weight" % s).T + (0 if w("self_attn.%s_proj.bias" % s) is None else w("self_attn.%s_proj.bias" % s))).view(t, m, h)
        q, ke, v = project("q", n), project("k", k), project("v", k)
        if c["model_type"] == "qwen3":
            q, ke = norm(q, w("self_attn.q_norm.weight"), c["rms_norm_eps"]), norm(ke, w("self_attn.k_norm.weight"), c["rms_norm_eps"])
        q, ke = rotate(q), rotate(ke)
        rows = []
        for a in range(n):
            g = a * k // n
            s = (q[:, a] @ ke[:, g].T / h ** 0.5).masked_fill(hidden, -math.inf)
            rows.append(s.softmax(-1) @ v[:, g])
        x = x + torch.cat(rows, -1) @ w("self_attn.o_proj.weight").T
        y = norm(x, w("post_attention_layernorm.weight"), c["rms_norm_eps"])
        gate = y @ w("mlp.gate_proj.weight").T
        x = x + (gate / (1 + torch.exp(-gate)) * (y @ w("mlp.up_proj.weight").T)) @ w("mlp.down_proj.weight").T
    head = p["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    return (norm(x, p["model.norm.weight"], c["rms_norm_eps"]) @ head.T).log_softmax(-1)


def make(name, kind, seed):
    c = {**BASE, **kind}
    g = torch.Generator().manual_seed(seed)
    p = {s: (torch.randn(shape, generator=g) * 0.25 + (1 if "norm" in s else 0)).double() for s, shape in shapes(c)}
    cases, margin = [], math.inf
    for length in PROMPTS:
        tokens = torch.randint(0, c["vocab_size"], (length,), generator=g).tolist()
        for _ in range(NEW_TOKENS):
            last = log_probabilities(c, p, tokens)[-1].topk(2)
            margin = min(margin, float(last.values[0] - last.values[1]))
            tokens.append(int(last.indices[0]))
        scores = log_probabilities(c, p, tokens)
        top = scores.topk(5)
        cases.append(dict(
            prompt=tokens[:length], continuation=tokens[length:],
            log_probabilities=[round(float(scores[i, tokens[i + 1]]), 7) for i in range(len(tokens) - 1)],
            top=[[[int(a), round(float(b), 7)] for a, b in zip(i, v)] for i, v in zip(top.indices, top.values)]))
    if margin < 2e-4:
        return False
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
        f.write("\n")
    with open(os.path.join(folder, "expected.json"), "w") as f:
        json.dump(cases, f)
        f.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), p)
    print(name, "seed", seed, "smallest margin between the two likeliest tokens", round(margin, 5))
    return True


for name, kind in KINDS.items():
    # A continuation with two almost equally likely tokens would test rounding, not the model.
    seed = 1
    while not make(name, kind, seed):
        seed += 1
