"""A Llama decoder in plain PyTorch, written for reading: what scorers are checked against."""

import numpy as np
import torch
from torch.nn.functional import silu

from tests.service import SIZES


def losses_of(weights, tokens):
    """-ln p(token | earlier ones), float64 [sequences, length]; NaN at position 0."""
    log_p = predictions_of(weights, tokens)
    losses = -log_p.gather(-1, torch.tensor(np.asarray(tokens))[:, 1:, None])[..., 0]
    return torch.cat((torch.full((len(tokens), 1), float("nan"), dtype=torch.float64), losses), 1).numpy()


def predictions_of(weights, tokens):
    """ln p of every token at every position but the first, given those before it; float64 [sequences, length - 1, vocabulary]."""
    w = {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
    heads, groups, hidden = SIZES["num_attention_heads"], SIZES["num_key_value_heads"], SIZES["hidden_size"]
    size = hidden // heads
    ids = torch.tensor(np.asarray(tokens))
    batch, length = ids.shape
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name]

    def rotate(x):
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(SIZES["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        y = norm(x, p + "input_layernorm.weight")
        q = (y @ w[p + "self_attn.q_proj.weight"].T).view(batch, length, heads, size).transpose(1, 2)
        k = (y @ w[p + "self_attn.k_proj.weight"].T).view(batch, length, groups, size).transpose(1, 2).repeat_interleave(heads // groups, 1)
        v = (y @ w[p + "self_attn.v_proj.weight"].T).view(batch, length, groups, size).transpose(1, 2).repeat_interleave(heads // groups, 1)
        scores = rotate(q) @ rotate(k).transpose(-1, -2) / size ** 0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -float("inf"))
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, hidden) @ w[p + "self_attn.o_proj.weight"].T
        y = norm(x, p + "post_attention_layernorm.weight")
        x = x + (silu(y @ w[p + "mlp.gate_proj.weight"].T) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    logits = norm(x, "model.norm.weight") @ w["lm_head.weight"].T
    return logits[:, :-1].log_softmax(-1)
