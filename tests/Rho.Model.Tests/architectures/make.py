#!/usr/bin/python3
"""A small random model of every architecture, with losses and gradients computed by plain PyTorch in float64.

Written from the models' published descriptions, without any of Rho's code. Run with Debian's python3-torch:
  /usr/bin/python3 make.py
Writes one folder a model: config.json, model.safetensors, expected.safetensors (tokens, documents, weights; losses with and without
documents that see each other, and for every parameter the gradient of both losses' weighted sum; of mixtures also the load-balancing loss
with and without documents, and for every parameter the gradient of their sum, each times the sum of the weights of its losses).
"""
import json, math, os, struct
import torch
import torch.nn.functional as F

B, T = 3, 40
BASE = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
            max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="float32")
LONG = dict(rope_type="longrope", short_factor=[1.0 + 0.1 * i for i in range(16)], long_factor=[1.5 + 0.5 * i for i in range(16)])
GEMMA = dict(hidden_activation="gelu_pytorch_tanh", hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True, query_pre_attn_scalar=24)
MODELS = {
    "llama": dict(model_type="llama"),
    "llama-bias": dict(model_type="llama", mlp_bias=True, head_dim=12),
    "mistral": dict(model_type="mistral", sliding_window=7),
    "mistral-mixed": dict(model_type="mistral", num_hidden_layers=3, sliding_window=9, layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "qwen2": dict(model_type="qwen2"),
    "qwen2-later": dict(model_type="qwen2", num_hidden_layers=3, use_sliding_window=True, sliding_window=6, max_window_layers=2, head_dim=10),
    "qwen3": dict(model_type="qwen3", num_attention_heads=6),
    "gemma2": dict(model_type="gemma2", **GEMMA, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma2-narrow": dict(model_type="gemma2", **GEMMA, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, head_dim=12, hidden_size=24),
    "gemma3_text": dict(model_type="gemma3_text", num_hidden_layers=3, **GEMMA, sliding_window=8, rope_local_base_freq=100.0, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                        rope_scaling=dict(rope_type="linear", factor=4.0)),
    "olmo2": dict(model_type="olmo2"),
    "olmo2-narrow": dict(model_type="olmo2", head_dim=8, num_key_value_heads=4),
    "smollm3": dict(model_type="smollm3", num_hidden_layers=3, no_rope_layers=[1, 0, 1], tie_word_embeddings=True),
    "phi3": dict(model_type="phi3", sliding_window=50),
    "phi3-long": dict(model_type="phi3", partial_rotary_factor=0.5, head_dim=64, num_attention_heads=2, num_key_value_heads=1, original_max_position_embeddings=16, rope_scaling=LONG, tie_word_embeddings=True),
    "phi3-narrow": dict(model_type="phi3", partial_rotary_factor=0.75, head_dim=8, sliding_window=9),
    "mixtral": dict(model_type="mixtral", num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": dict(model_type="qwen3_moe", num_experts=6, num_experts_per_tok=3, moe_intermediate_size=20, norm_topk_prob=True),
    "qwen3_moe-plain": dict(model_type="qwen3_moe", num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=False, head_dim=12),
    "phi3-short": dict(model_type="phi3", original_max_position_embeddings=48, rope_scaling=LONG),
}


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, t in tensors.items():
        n = t.numel() * t.element_size()
        header[name] = dict(dtype={torch.float32: "F32", torch.int64: "I64"}[t.dtype], shape=list(t.shape), data_offsets=[offset, offset + n])
        offset += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.detach().contiguous().numpy().tobytes())


def is_gemma(c):
    return c["model_type"].startswith("gemma")


def mixture(c):
    """Number of experts, their size and their names; 0 where the feed-forward is one."""
    if c["model_type"] == "mixtral":
        return c["num_local_experts"], c["intermediate_size"], "block_sparse_moe", ("w1", "w3", "w2")
    return c.get("num_experts", 0), c.get("moe_intermediate_size"), "mlp", ("gate_proj", "up_proj", "down_proj")


def shapes(c):
    """Names as in the published checkpoints."""
    d, f, h, n, k, v = (c[x] for x in ("hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads", "vocab_size"))
    kind = c["model_type"]
    yield "model.embed_tokens.weight", (v, d)
    for l in range(c["num_hidden_layers"]):
        s = "model.layers.%d." % l
        norms = dict(olmo2=["post_attention", "post_feedforward"], gemma2=["input", "post_attention", "pre_feedforward", "post_feedforward"])
        for a in norms.get("gemma2" if is_gemma(c) else kind, ["input", "post_attention"]):
            yield s + a + "_layernorm.weight", (d,)
        if kind == "phi3":
            yield s + "self_attn.qkv_proj.weight", ((n + 2 * k) * h, d)
            yield s + "mlp.gate_up_proj.weight", (2 * f, d)
        else:
            for a, m in (("q", n), ("k", k), ("v", k)):
                yield s + "self_attn.%s_proj.weight" % a, (m * h, d)
                if kind == "qwen2":
                    yield s + "self_attn.%s_proj.bias" % a, (m * h,)
                if kind in ("qwen3", "qwen3_moe", "gemma3_text", "olmo2") and a != "v":
                    yield s + "self_attn.%s_norm.weight" % a, (m * h if kind == "olmo2" else h,)
        experts, size, module, (gate, up, down) = mixture(c)
        if experts:
            yield s + module + ".gate.weight", (experts, d)
            for e in range(experts):
                for a, shape in ((gate, (size, d)), (up, (size, d)), (down, (d, size))):
                    yield s + "%s.experts.%d.%s.weight" % (module, e, a), shape
        elif kind != "phi3":
            for a in ("gate", "up"):
                yield s + "mlp.%s_proj.weight" % a, (f, d)
                if c.get("mlp_bias"):
                    yield s + "mlp.%s_proj.bias" % a, (f,)
        yield s + "self_attn.o_proj.weight", (d, n * h)
        if not experts:
            yield s + "mlp.down_proj.weight", (d, f)
        if c.get("mlp_bias"):
            yield s + "mlp.down_proj.bias", (d,)
    yield "model.norm.weight", (d,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (v, d)


def window(c, layer):
    kind, w = c["model_type"], c.get("sliding_window")
    if "layer_types" in c:
        return w if c["layer_types"][layer] == "sliding_attention" else None
    if kind == "gemma2":
        return w if layer % 2 == 0 else None
    if kind == "qwen2":
        return w if c.get("use_sliding_window") and layer >= c["max_window_layers"] else None
    return w


def turns(c, layer):
    """Angle of each rotated pair per position, and the factor on cosines and sines."""
    size = int(c["head_dim"] * c.get("partial_rotary_factor", 1.0))
    local = c["model_type"] == "gemma3_text" and window(c, layer) is not None
    f = (c["rope_local_base_freq"] if local else c["rope_theta"]) ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    s = None if local else c.get("rope_scaling")
    if not s:
        return f, 1.0
    if s["rope_type"] == "linear":
        return f / s["factor"], 1.0
    old = c["original_max_position_embeddings"]
    longer = s["long_factor"] if T > old else s["short_factor"]
    return f / torch.tensor(longer, dtype=torch.float64), math.sqrt(1 + math.log(c["max_position_embeddings"] / old) / math.log(old))


def balance(c, routed, documents):
    """E * sum_e f_e P_e over the tokens of all layers together: f_e the share of them that takes e, P_e their mean probability of e."""
    experts, k = mixture(c)[0], c["num_experts_per_tok"]
    text = torch.ones(B * T, dtype=torch.bool) if documents is None else (documents >= 0).flatten()
    chances = torch.cat([one.reshape(B * T, experts)[text] for one in routed])
    taken = F.one_hot(chances.topk(k, -1).indices, experts).double()  # [tokens, k, E]
    return experts * (taken.mean(0) * chances.mean(0)).sum()


def forward(c, p, tokens, documents, routed):
    n, k, h, kind, eps = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["model_type"], c["rms_norm_eps"]
    one = 1 if is_gemma(c) else 0
    norm = lambda x, w: x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * (one + w)
    cap = lambda x, name: x if c.get(name) is None else c[name] * torch.tanh(x / c[name])
    act = (lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))) if is_gemma(c) else F.silu
    scale = c["query_pre_attn_scalar"] ** -0.5 if is_gemma(c) else h ** -0.5
    distance = torch.arange(T)[:, None] - torch.arange(T)[None]
    x = p["model.embed_tokens.weight"][tokens] * (math.sqrt(c["hidden_size"]) if is_gemma(c) else 1)
    for l in range(c["num_hidden_layers"]):
        w = lambda s: p["model.layers.%d.%s" % (l, s)]
        linear = lambda y, s: y @ w(s + ".weight").T + (p.get("model.layers.%d.%s.bias" % (l, s), 0))
        y = x if kind == "olmo2" else norm(x, w("input_layernorm.weight"))
        if kind == "phi3":
            q, ke, v = linear(y, "self_attn.qkv_proj").split([n * h, k * h, k * h], -1)
        else:
            q, ke, v = (linear(y, "self_attn.%s_proj" % a) for a in "qkv")
        if kind == "olmo2":
            q, ke = norm(q, w("self_attn.q_norm.weight")), norm(ke, w("self_attn.k_norm.weight"))
        q, ke, v = q.view(B, T, n, h), ke.view(B, T, k, h), v.view(B, T, k, h)
        if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
            q, ke = norm(q, w("self_attn.q_norm.weight")), norm(ke, w("self_attn.k_norm.weight"))
        if "no_rope_layers" not in c or c["no_rope_layers"][l] == 1:
            f, factor = turns(c, l)
            half = len(f)
            turn = torch.polar(torch.full((T, half), factor, dtype=torch.float64), torch.arange(T, dtype=torch.float64)[:, None] * f)[None, :, None]

            def rotate(z):
                r = torch.complex(z[..., :half].contiguous(), z[..., half: 2 * half].contiguous()) * turn
                return torch.cat([r.real, r.imag, z[..., 2 * half:]], -1)
            q, ke = rotate(q), rotate(ke)
        seen = (distance >= 0)[None]
        if window(c, l) is not None:
            seen = seen & (distance < window(c, l))[None]
        if documents is not None:
            seen = seen & (documents[:, :, None] == documents[:, None, :])
        rows = []
        for a in range(n):
            s = cap(torch.einsum("bth,bsh->bts", q[:, :, a], ke[:, :, a * k // n]) * scale, "attn_logit_softcapping")
            rows.append(torch.einsum("bts,bsh->bth", s.masked_fill(~seen, -math.inf).softmax(-1), v[:, :, a * k // n]))
        y = linear(torch.cat(rows, -1), "self_attn.o_proj")
        x = x + (norm(y, w("post_attention_layernorm.weight")) if kind == "olmo2" or is_gemma(c) else y)
        y = x if kind == "olmo2" else norm(x, w("pre_feedforward_layernorm.weight" if is_gemma(c) else "post_attention_layernorm.weight"))
        experts, _, module, (gate_name, up_name, down_name) = mixture(c)
        if experts:
            chances = linear(y, module + ".gate").softmax(-1)
            routed.append(chances)
            top, ids = chances.topk(c["num_experts_per_tok"], -1)
            share = torch.zeros_like(chances).scatter(-1, ids, top / top.sum(-1, keepdim=True) if kind == "mixtral" or c["norm_topk_prob"] else top)
            each = lambda e, a, z: linear(z, "%s.experts.%d.%s" % (module, e, a))
            x = x + sum(share[..., e: e + 1] * each(e, down_name, F.silu(each(e, gate_name, y)) * each(e, up_name, y)) for e in range(experts))
            continue
        gate, up = linear(y, "mlp.gate_up_proj").chunk(2, -1) if kind == "phi3" else (linear(y, "mlp.gate_proj"), linear(y, "mlp.up_proj"))
        y = linear(act(gate) * up, "mlp.down_proj")
        x = x + (norm(y, w("post_feedforward_layernorm.weight")) if kind == "olmo2" or is_gemma(c) else y)
    head = p["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    return cap(norm(x, p["model.norm.weight"]) @ head.T, "final_logit_softcapping")


def make(name, kind, seed):
    c = {**BASE, **kind}
    g = torch.Generator().manual_seed(seed)
    p = {}
    for s, shape in shapes(c):
        values = torch.randn(shape, generator=g) * 0.2 + (1 if "norm" in s and not is_gemma(c) else 0)
        p[s] = values.double().requires_grad_()
    tokens = torch.randint(0, c["vocab_size"], (B, T), generator=g)
    share = torch.rand(B, T, generator=g)
    share[share < 0.4] = 0
    share[2, 25:] = 0
    documents = torch.zeros(B, T, dtype=torch.int64)
    documents[0, 9:] = 1
    documents[0, 30:] = 2
    documents[1, 37:] = -1
    expected = {"tokens": tokens, "weights": share, "documents": documents}
    total, uneven = 0, 0
    for suffix, mask in (("", None), ("_documents", documents)):
        routed = []
        logits = forward(c, p, tokens, mask, routed)
        losses = F.cross_entropy(logits[:, :-1].reshape(-1, c["vocab_size"]), tokens[:, 1:].reshape(-1), reduction="none").view(B, T - 1)
        valid = torch.ones(B, T - 1, dtype=torch.bool) if mask is None else (mask[:, 1:] == mask[:, :-1]) & (mask[:, 1:] >= 0)
        expected["loss" + suffix] = torch.cat([torch.full((B, 1), math.nan), losses.detach().masked_fill(~valid, math.nan).float()], 1)
        total = total + (losses * share[:, 1:] * valid).sum()
        if routed:
            value = balance(c, routed, mask)
            expected["balance" + suffix] = value.detach().float().view(1)
            uneven = uneven + value * (share[:, 1:] * valid).sum()
    for a, gradient in zip(p, torch.autograd.grad(total, list(p.values()), retain_graph=True)):
        expected["gradient." + a] = gradient.float()
    if mixture(c)[0]:
        for (a, q), gradient in zip(p.items(), torch.autograd.grad(uneven, list(p.values()), allow_unused=True)):
            expected["balance_gradient." + a] = torch.zeros_like(q).float() if gradient is None else gradient.float()
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(c, f, indent=1)
        f.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), {a: b.detach().float() for a, b in p.items()})
    write_safetensors(os.path.join(folder, "expected.safetensors"), expected)


for seed, (name, kind) in enumerate(MODELS.items()):
    make(name, kind, seed)
