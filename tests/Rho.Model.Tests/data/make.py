#!/usr/bin/python3
"""Small random models of every supported kind, with losses and gradients computed by plain PyTorch.

Written from the models' published descriptions, without any of Rho's code. Run with Debian's python3-torch:
  /usr/bin/python3 make.py
Writes one folder a model: config.json, model.safetensors, expected.safetensors (tokens, documents, losses, entropies and the five most
likely tokens of the distributions that they are taken from, and the gradient of the weighted loss sum for every parameter).
"""
import json, math, os, struct
import torch
import torch.nn.functional as F

KINDS = {
    "llama": dict(model_type="llama"),
    "llama-tied": dict(model_type="llama", tie_word_embeddings=True, head_dim=6),
    "llama-linear": dict(model_type="llama", rope_scaling=dict(rope_type="linear", factor=4.0)),
    "llama-dynamic": dict(model_type="llama", max_position_embeddings=16, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama3": dict(model_type="llama", rope_theta=5000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn": dict(model_type="llama", rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "mistral": dict(model_type="mistral", sliding_window=7),
    "qwen2": dict(model_type="qwen2"),
    "qwen3": dict(model_type="qwen3", head_dim=12),
    "kernels": dict(model_type="llama", hidden_size=32, head_dim=32, intermediate_size=48),
    "kernels-window": dict(model_type="mistral", sliding_window=7, hidden_size=32, head_dim=64, intermediate_size=48, vocab_size=67),
    "kernels-qwen3": dict(model_type="qwen3", hidden_size=48, head_dim=32, intermediate_size=32),
}


def write_safetensors(path, tensors):
    names = {torch.float32: "F32", torch.int64: "I64"}
    header, offset = {}, 0
    for name, t in tensors.items():
        n = t.numel() * t.element_size()
        header[name] = dict(dtype=names[t.dtype], shape=list(t.shape), data_offsets=[offset, offset + n])
        offset += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.detach().contiguous().numpy().tobytes())


def norm(x, w, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * w


def frequencies(c, length):
    size, theta, s = c["head_dim"], c["rope_theta"], c.get("rope_scaling")
    i = torch.arange(0, size, 2, dtype=torch.float64)
    if s and s["rope_type"] == "dynamic" and length > c["max_position_embeddings"]:
        m = c["max_position_embeddings"]
        theta = theta * ((s["factor"] * length / m) - (s["factor"] - 1)) ** (size / (size - 2))
    f = 1.0 / theta ** (i / size)
    if not s or s["rope_type"] == "dynamic":
        return f, 1.0
    if s["rope_type"] == "linear":
        return f / s["factor"], 1.0
    old = s["original_max_position_embeddings"]
    if s["rope_type"] == "llama3":
        low, high = old / s["low_freq_factor"], old / s["high_freq_factor"]
        out = []
        for v in f.tolist():
            wave = 2 * math.pi / v
            if wave < high:
                out.append(v)
            elif wave > low:
                out.append(v / s["factor"])
            else:
                smooth = (old / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
                out.append((1 - smooth) * v / s["factor"] + smooth * v)
        return torch.tensor(out, dtype=torch.float64), 1.0
    # yarn
    def dim(rot):
        return size * math.log(old / (rot * 2 * math.pi)) / (2 * math.log(theta))
    low, high = max(math.floor(dim(32)), 0), min(math.ceil(dim(1)), size - 1)
    ramp = ((torch.arange(size // 2, dtype=torch.float64) - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    return f / s["factor"] * ramp + f * (1 - ramp), 0.1 * math.log(s["factor"]) + 1.0


def forward(c, p, tokens, documents):
    b, t = tokens.shape
    n, k, h = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    f, scale = frequencies(c, t)
    angles = torch.arange(t, dtype=torch.float64)[:, None] * f[None]
    angles = torch.cat([angles, angles], -1)
    cos, sin = (angles.cos() * scale).float(), (angles.sin() * scale).float()

    def rotate(x):
        a, z = x[..., : h // 2], x[..., h // 2:]
        return x * cos[None, :, None] + torch.cat([-z, a], -1) * sin[None, :, None]

    row, col = torch.arange(t)[:, None], torch.arange(t)[None]
    seen = col <= row
    if c.get("sliding_window"):
        seen = seen & (row - col < c["sliding_window"])
    seen = seen[None].expand(b, t, t)
    if documents is not None:
        seen = seen & (documents[:, :, None] == documents[:, None, :])
    x = p["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        q = lambda s: p["model.layers.%d.%s" % (i, s)]
        y = norm(x, q("input_layernorm.weight"), c["rms_norm_eps"])
        heads = []
        for name, count in (("q", n), ("k", k), ("v", k)):
            z = y @ q("self_attn.%s_proj.weight" % name).T
            if c["model_type"] == "qwen2":
                z = z + q("self_attn.%s_proj.bias" % name)
            z = z.view(b, t, count, h)
            if c["model_type"] == "qwen3" and name != "v":
                z = norm(z, q("self_attn.%s_norm.weight" % name), c["rms_norm_eps"])
            heads.append(z if name == "v" else rotate(z))
        qh, kh, vh = heads
        outputs = []
        for head in range(n):
            g = head // (n // k)
            s = torch.einsum("bth,bsh->bts", qh[:, :, head], kh[:, :, g]) / math.sqrt(h)
            s = s.masked_fill(~seen, -math.inf)
            outputs.append(torch.einsum("bts,bsh->bth", s.softmax(-1), vh[:, :, g]))
        x = x + torch.cat(outputs, -1) @ q("self_attn.o_proj.weight").T
        y = norm(x, q("post_attention_layernorm.weight"), c["rms_norm_eps"])
        x = x + (F.silu(y @ q("mlp.gate_proj.weight").T) * (y @ q("mlp.up_proj.weight").T)) @ q("mlp.down_proj.weight").T
    head = p["model.embed_tokens.weight"] if c["tie_word_embeddings"] else p["lm_head.weight"]
    return norm(x, p["model.norm.weight"], c["rms_norm_eps"]) @ head.T


def make(name, kind, seed):
    c = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="float32")
    c.update(kind)
    g = torch.Generator().manual_seed(seed)
    d, i, h, n, k, v = c["hidden_size"], c["intermediate_size"], c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"], c["vocab_size"]
    shapes = {"model.embed_tokens.weight": (v, d)}
    for l in range(c["num_hidden_layers"]):
        s = "model.layers.%d." % l
        shapes[s + "input_layernorm.weight"] = (d,)
        for q, m in (("q", n), ("k", k), ("v", k)):
            shapes[s + "self_attn.%s_proj.weight" % q] = (m * h, d)
            if c["model_type"] == "qwen2":
                shapes[s + "self_attn.%s_proj.bias" % q] = (m * h,)
            if c["model_type"] == "qwen3" and q != "v":
                shapes[s + "self_attn.%s_norm.weight" % q] = (h,)
        shapes[s + "self_attn.o_proj.weight"] = (d, n * h)
        shapes[s + "post_attention_layernorm.weight"] = (d,)
        shapes[s + "mlp.gate_proj.weight"] = (i, d)
        shapes[s + "mlp.up_proj.weight"] = (i, d)
        shapes[s + "mlp.down_proj.weight"] = (d, i)
    shapes["model.norm.weight"] = (d,)
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (v, d)
    p = {a: (torch.randn(b, generator=g) * 0.15 + (1 if "norm" in a else 0)).requires_grad_() for a, b in shapes.items()}
    tokens = torch.randint(0, v, (3, 24), generator=g)
    expected = {"tokens": tokens}
    share = torch.rand(3, 24, generator=g)
    share[share < 0.4] = 0
    expected["weights"] = share
    documents = torch.zeros(3, 24, dtype=torch.int64)
    documents[0, 9:] = 1
    documents[0, 20:] = 2
    documents[1, 21:] = -1
    expected["documents"] = documents
    for suffix, mask in (("", None), ("_documents", documents)):
        logits = forward(c, p, tokens, mask)
        losses = F.cross_entropy(logits[:, :-1].reshape(-1, v), tokens[:, 1:].reshape(-1), reduction="none").view(3, 23)
        valid = torch.ones(3, 23, dtype=torch.bool)
        if mask is not None:
            valid = (mask[:, 1:] == mask[:, :-1]) & (mask[:, 1:] >= 0)
        expected["loss" + suffix] = torch.cat([torch.full((3, 1), math.nan), losses.detach().masked_fill(~valid, math.nan)], 1)
        log_p = logits[:, :-1].detach().log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        expected["entropy" + suffix] = torch.cat([torch.full((3, 1), math.nan), entropy.masked_fill(~valid, math.nan)], 1)
        top, ids = log_p.topk(5, -1)
        expected["top_ids" + suffix] = torch.cat([torch.zeros(3, 1, 5, dtype=torch.int64), ids.masked_fill(~valid[..., None], 0)], 1)
        expected["top_log_probabilities" + suffix] = torch.cat([torch.full((3, 1, 5), math.nan), top.masked_fill(~valid[..., None], math.nan)], 1)
        gradients = torch.autograd.grad((losses * share[:, 1:] * valid).sum(), list(p.values()))
        for a, b in zip(p, gradients):
            expected["gradient%s.%s" % (suffix, a)] = b
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
        f.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), p)
    write_safetensors(os.path.join(folder, "expected.safetensors"), expected)


for seed, (name, kind) in enumerate(KINDS.items()):
    make(name, kind, seed)
