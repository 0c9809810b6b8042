#!/usr/bin/python3
"""Selective training of a small Llama-family model by plain PyTorch, as an independent account of what a step does.

Written from the method's description, without any of Rho's code: https://arxiv.org/abs/2404.07965, section 2.2. Run with Debian's python3-torch:
  /usr/bin/python3 make.py
Computed in float64, so that what differs is the rounding of Rho's float32 alone. Two things would make it grow without bound, and are kept away:
AdamW moves a weight by rate * g / (|g| + epsilon), so that rounding near zero turns into whole steps where epsilon is small (EPSILON is not);
and a selection jumps where two scores change places (checked: no score is within TIE of its threshold).
Writes
  adamw.safetensors           a vector of parameters over 12 AdamW steps: p0, gradients, p1 ... p12
  slm/model/                  the first weights as a Hugging Face folder
  slm/steps.safetensors       tokens [steps, micro, batch, length], reference losses of the same shape (NaN at position 0), and per step
                              losses, masks, gradient (after division, before clipping), norm, rate, and all parameters afterwards
  slm/variants.safetensors    the same model and tokens under other objectives, 4 steps each: losses and weights [steps, micro, batch, length],
                              loss (what each step minimised), norms, and all parameters after the last step; for the divergence the
                              reference's top_ids and top_log_probabilities [steps, micro, batch, length, 4] and the divergences themselves
"""
import json, math, os, struct
import torch
import torch.nn.functional as F

VOCAB, HIDDEN, INTER, LAYERS, HEADS, KV, HEAD = 61, 24, 40, 2, 4, 2, 6
STEPS, MICRO, BATCH, LENGTH = 5, 2, 3, 11
RATIO, PEAK, WARMUP, FINAL, CLIP = 0.6, 3e-3, 2, 0.1, 0.5
EPSILON, TIE = 1e-3, 1e-5
HERE = os.path.dirname(os.path.abspath(__file__))


def save(path, tensors, metadata=None):
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.float64:
            tensor = tensor.float()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        blob = tensor.numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def weights():
    w = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        w[p + "input_layernorm.weight"] = (HIDDEN,)
        w[p + "self_attn.q_proj.weight"] = (HEADS * HEAD, HIDDEN)
        w[p + "self_attn.k_proj.weight"] = (KV * HEAD, HIDDEN)
        w[p + "self_attn.v_proj.weight"] = (KV * HEAD, HIDDEN)
        w[p + "self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD)
        w[p + "post_attention_layernorm.weight"] = (HIDDEN,)
        w[p + "mlp.gate_proj.weight"] = (INTER, HIDDEN)
        w[p + "mlp.up_proj.weight"] = (INTER, HIDDEN)
        w[p + "mlp.down_proj.weight"] = (HIDDEN, INTER)
    w["model.norm.weight"] = (HIDDEN,)
    w["lm_head.weight"] = (VOCAB, HIDDEN)
    return {n: (torch.ones(s) + 0.1 * torch.randn(s) if len(s) == 1 else 0.15 * torch.randn(s)).double().requires_grad_() for n, s in w.items()}


def norm(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w


def rotate(x):
    t, d = x.shape[-2], x.shape[-1]
    angle = torch.arange(t).double()[:, None] / 10000.0 ** (torch.arange(0, d, 2).double() / d)
    angle = torch.cat([angle, angle], -1)
    a, b = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


def logits(w, ids):
    x = F.embedding(ids, w["model.embed_tokens.weight"])
    n, t = ids.shape
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"])
        q = rotate((h @ w[p + "self_attn.q_proj.weight"].t()).view(n, t, HEADS, HEAD).transpose(1, 2))
        k = rotate((h @ w[p + "self_attn.k_proj.weight"].t()).view(n, t, KV, HEAD).transpose(1, 2)).repeat_interleave(HEADS // KV, 1)
        v = (h @ w[p + "self_attn.v_proj.weight"].t()).view(n, t, KV, HEAD).transpose(1, 2).repeat_interleave(HEADS // KV, 1)
        s = q @ k.transpose(-1, -2) / math.sqrt(HEAD)
        s = s.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -math.inf)
        x = x + (s.softmax(-1) @ v).transpose(1, 2).reshape(n, t, -1) @ w[p + "self_attn.o_proj.weight"].t()
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        x = x + (F.silu(h @ w[p + "mlp.gate_proj.weight"].t()) * (h @ w[p + "mlp.up_proj.weight"].t())) @ w[p + "mlp.down_proj.weight"].t()
    return norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].t()


def token_losses(w, ids):
    """[batch, length - 1]: the loss of token t + 1 at column t."""
    z = logits(w, ids)[:, :-1]
    return F.cross_entropy(z.reshape(-1, VOCAB), ids[:, 1:].reshape(-1), reduction="none").view(ids.shape[0], -1)


def adamw():
    torch.manual_seed(3)
    p = torch.randn(37).double().requires_grad_()
    optimizer = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    gradients = torch.randn(12, 37) * torch.logspace(-6, 1, 37)
    out = {"p0": p.clone(), "gradients": gradients}
    for i in range(12):
        p.grad = gradients[i].double()
        optimizer.param_groups[0]["lr"] = 1e-2 / (i + 1)
        optimizer.step()
        out[f"p{i + 1}"] = p.clone()
    save(f"{HERE}/adamw.safetensors", out)


def slm():
    torch.manual_seed(5)
    w, r = weights(), weights()
    config = dict(model_type="llama", vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INTER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                  num_key_value_heads=KV, head_dim=HEAD, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False)
    save(f"{HERE}/slm/model/model.safetensors", w, {"format": "pt"})
    with open(f"{HERE}/slm/model/config.json", "w") as f:
        json.dump(config, f, indent=2)
    ids = torch.randint(0, VOCAB, (STEPS, MICRO, BATCH, LENGTH))
    reference = torch.full((STEPS, MICRO, BATCH, LENGTH), math.nan)   # float32, as what is given
    with torch.no_grad():
        for s in range(STEPS):
            for m in range(MICRO):
                reference[s, m, :, 1:] = token_losses(r, ids[s, m])
    decay = [p for p in w.values() if p.dim() > 1]
    keep = [p for p in w.values() if p.dim() == 1]
    optimizer = torch.optim.AdamW([dict(params=decay, weight_decay=0.1), dict(params=keep, weight_decay=0.0)], lr=PEAK, betas=(0.9, 0.95), eps=EPSILON)
    out = {"tokens": ids, "reference": reference}
    for s in range(STEPS):
        progress = (s - WARMUP) / (STEPS - WARMUP)
        rate = PEAK * (s + 1) / WARMUP if s < WARMUP else PEAK * FINAL + PEAK * (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        total, count = 0.0, 0
        all_losses = torch.full((MICRO, BATCH, LENGTH), math.nan, dtype=torch.float64)
        masks = torch.zeros(MICRO, BATCH, LENGTH, dtype=torch.float64)
        for m in range(MICRO):
            losses = token_losses(w, ids[s, m])
            excess = (losses.detach() - reference[s, m, :, 1:]).reshape(-1)
            mask = hard(excess, RATIO)
            k = mask.sum().item()
            total = total + (losses.reshape(-1) * mask).sum()
            count += k
            all_losses[m, :, 1:] = losses.detach()
            masks[m, :, 1:] = mask.view(BATCH, -1)
        (total / count).backward()
        out[f"losses{s}"], out[f"masks{s}"] = all_losses, masks
        out[f"gradient{s}"] = torch.cat([p.grad.reshape(-1) for p in w.values()])
        out[f"norm{s}"] = torch.nn.utils.clip_grad_norm_(list(w.values()), CLIP).reshape(1)
        out[f"rate{s}"] = torch.tensor([rate])
        optimizer.step()
        out[f"parameters{s}"] = torch.cat([p.detach().reshape(-1) for p in w.values()])
    save(f"{HERE}/slm/steps.safetensors", out)


def hard(scores, ratio):
    """1 for the ceil(ratio n) highest of a vector, 0 for the others; a ratio that is a hair above a whole count by rounding is that count."""
    k = math.ceil(round(ratio * scores.numel(), 9))
    order = scores.sort(descending=True)
    assert k == scores.numel() or order.values[k - 1] - order.values[k] > TIE, f"the scores around the threshold are {order.values[k - 1] - order.values[k]} apart: take another seed"
    mask = torch.zeros_like(scores)
    mask[order.indices[:k]] = 1
    return mask


def variants():
    """Objectives, their scope and the terms beside cross-entropy; micro-batches of a step are cut from one batch of MICRO * BATCH sequences."""
    torch.manual_seed(5)
    first, r = weights(), weights()
    ids = torch.randint(0, VOCAB, (STEPS, MICRO, BATCH, LENGTH))
    steps, k = 4, 4
    with torch.no_grad():
        logp = torch.log_softmax(torch.stack([logits(r, ids[s].view(-1, LENGTH))[:, :-1] for s in range(steps)]).double(), -1)
        reference = -logp.gather(-1, ids[:steps].view(steps, -1, LENGTH)[:, :, 1:, None]).squeeze(-1)   # [steps, micro * batch, length - 1]
        top = logp.topk(k, -1)
    out = {"top_ids": torch.zeros(steps, MICRO, BATCH, LENGTH, k, dtype=torch.int64), "top_log_probabilities": torch.full((steps, MICRO, BATCH, LENGTH, k), math.nan)}
    out["top_ids"].view(steps, -1, LENGTH, k)[:, :, 1:] = top.indices
    out["top_log_probabilities"].view(steps, -1, LENGTH, k)[:, :, 1:] = top.values.float()

    def divergence(s, z):
        """KL of the merged distributions: each of the reference's k tokens, and all others as one. [micro * batch, length - 1]"""
        q = torch.log_softmax(z.detach().double(), -1).exp()
        p, q = top.values[s].exp(), q.gather(-1, top.indices[s])
        p = torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1)
        q = torch.cat([q, 1 - q.sum(-1, keepdim=True)], -1)
        return (p * (p.log() - q.log())).sum(-1)

    def micro(select):
        return lambda v: torch.cat([select(part.reshape(-1)).view(part.shape) for part in v.split(BATCH)])

    def soft(v):
        return v.numel() * torch.softmax(v, 0)

    def sequences(v):
        means = v.view(BATCH, -1).mean(1)
        return hard(means, 0.5)[:, None].expand(BATCH, v.numel() // BATCH).reshape(-1)

    cases = {
        "divergence": dict(by="divergence", select=lambda s: micro(lambda v: hard(v, 0.6))),
        "divergence_sequence": dict(by="divergence", select=lambda s: lambda v: torch.stack([hard(row, 0.6) for row in v])),
        "divergence_global": dict(by="divergence", select=lambda s: lambda v: hard(v.reshape(-1), 0.6).view(v.shape)),
        "z_loss": dict(z=0.01),
        "smoothing": dict(smoothing=0.1),
        "z_loss_smoothing": dict(z=0.01, smoothing=0.1),
        "soft": dict(select=lambda s: micro(lambda v: soft(v / 0.7))),
        "sequences": dict(select=lambda s: micro(sequences)),
        "linear": dict(select=lambda s: micro(lambda v: hard(v, 0.9 + (0.3 - 0.9) * s / 4))),
        "cosine": dict(select=lambda s: micro(lambda v: hard(v, 0.3 + (0.9 - 0.3) * 0.5 * (1 + math.cos(math.pi * s / 4))))),
    }
    for name, case in cases.items():
        w = {n: p.detach().clone().requires_grad_() for n, p in first.items()}
        optimizer = torch.optim.AdamW([dict(params=[p for p in w.values() if p.dim() > 1], weight_decay=0.1), dict(params=[p for p in w.values() if p.dim() == 1], weight_decay=0.0)],
                                      lr=PEAK, betas=(0.9, 0.95), eps=EPSILON)
        select = case.get("select", lambda s: micro(lambda v: hard(v, 0.6)))
        stacked = {key: [] for key in ("losses", "weights", "divergences", "loss", "norms")}
        for s in range(steps):
            tokens = ids[s].view(-1, LENGTH)
            z = logits(w, tokens)[:, :-1]                                                # [micro * batch, length - 1, vocab]
            losses = F.cross_entropy(z.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1), reduction="none").view(tokens.shape[0], -1)
            scores = divergence(s, z) if case.get("by") == "divergence" else losses.detach().double() - reference[s]
            weight = select(s)(scores).float()
            terms = F.cross_entropy(z.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1), reduction="none", label_smoothing=case.get("smoothing", 0.0)).view_as(losses)
            terms = terms + case.get("z", 0.0) * torch.logsumexp(z, -1) ** 2
            for group in optimizer.param_groups:
                group["lr"] = PEAK
            optimizer.zero_grad()
            ((terms * weight).sum() / weight.sum()).backward()
            norm = torch.nn.utils.clip_grad_norm_(list(w.values()), CLIP)
            optimizer.step()

            def spread(values):
                return torch.cat([torch.full((values.shape[0], 1), math.nan), values.float()], 1).view(MICRO, BATCH, LENGTH)
            stacked["losses"].append(spread(losses.detach()))
            stacked["weights"].append(spread(weight).nan_to_num(0.0))
            if case.get("by") == "divergence":
                stacked["divergences"].append(spread(scores))
            stacked["loss"].append((losses.detach() * weight).sum() / weight.sum())
            stacked["norms"].append(norm)
        for key, values in stacked.items():
            if values:
                out[f"{name}.{key}"] = torch.stack(values)
        out[f"{name}.parameters"] = torch.cat([p.detach().reshape(-1) for p in w.values()])
    save(f"{HERE}/slm/variants.safetensors", out)


adamw()
slm()
variants()
