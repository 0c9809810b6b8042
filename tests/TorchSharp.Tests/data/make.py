#!/usr/bin/python3
"""Writes operations.json: what PyTorch makes of the inputs below. Run it with Debian's python3-torch:
/usr/bin/python3 tests/TorchSharp.Tests/data/make.py
Each case is named as in OperationTests.cs; what follows a colon tells variants apart."""
import json
import math
import os

import torch
import torch.nn.functional as F

torch.manual_seed(0)
x, y = torch.randn(3, 4), torch.randn(3, 4)
u = torch.rand(3, 4) * 1.8 - 0.9  # within (-1, 1)
p = torch.rand(3, 4) + 0.1  # above 0
w = torch.tensor([[1.5, math.nan, math.inf, -math.inf], [0.0, -2.5, 2.5, 3.5], [-0.5, 1e30, -1e-30, 7.0]])
i, j = torch.randint(-9, 10, (3, 4)), torch.randint(1, 6, (3, 4))
b, c = torch.rand(3, 4) > 0.5, torch.rand(3, 4) > 0.5
v, z = torch.randn(4), torch.randn(3)
m, n = torch.randn(4, 5), torch.randn(3, 5)
a3, b3, c3 = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(2, 3, 5)
index = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2], [2, 0, 2, 1]])
rows = torch.tensor([2, 0, 2])
two = torch.tensor([2, 0])
source = torch.randn(2, 4)
sorted_values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
logits, targets = torch.randn(5, 7), torch.tensor([1, 0, 6, -100, 3])
class_weights = torch.rand(7) + 0.5
query, key, value = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
attention_mask = torch.rand(3, 5) > 0.3
attention_mask[:, 0] = True
half, brain = x.half(), x.bfloat16()

inputs = dict(x=x, y=y, u=u, p=p, w=w, i=i, j=j, b=b, c=c, v=v, z=z, m=m, n=n, a3=a3, b3=b3, c3=c3, index=index, rows=rows, two=two,
              source=source, sorted_values=sorted_values, logits=logits, targets=targets, class_weights=class_weights, query=query, key=key,
              value=value, attention_mask=attention_mask, half=half, brain=brain)

cases = {}
for name in ("abs ceil cos cosh erf erfc exp exp2 expm1 floor frac neg relu round sigmoid sign silu sin sinh square tan tanh trunc "
             "isfinite isinf isnan isneginf isposinf positive signbit log_sigmoid").split():
    function = getattr(F, "logsigmoid") if name == "log_sigmoid" else F.silu if name == "silu" else getattr(torch, name)
    cases[name] = lambda f=function: f(w)
for name in "acos asin atan erfinv".split():
    cases[name] = lambda f=getattr(torch, name): f(u)
for name in "lgamma log log10 log1p log2 reciprocal rsqrt sqrt".split():
    cases[name] = lambda f=getattr(torch, name): f(p)
for name in "eq ne lt le gt ge".split():
    cases[name] = lambda f=getattr(torch, name): f(i, j)
    cases[name + ":number"] = lambda f=getattr(torch, name): f(i, 3)
    cases[name + "_"] = lambda f=name: getattr(i.clone(), f + "_")(j)
    cases[name + "_:number"] = lambda f=name: getattr(i.clone(), f + "_")(3)
for name in "sub mul fmod remainder".split():
    cases[name] = lambda f=getattr(torch, name): f(x, y)
    cases[name + ":number"] = lambda f=getattr(torch, name): f(x, 1.5)
    cases[name + ":integers"] = lambda f=getattr(torch, name): f(i, j)
    cases[name + "_"] = lambda f=name: getattr(x.clone(), f + "_")(y)
    cases[name + "_:number"] = lambda f=name: getattr(x.clone(), f + "_")(1.5)
for name in "atan2 copysign fmax fmin hypot logaddexp maximum minimum".split():
    cases[name] = lambda f=getattr(torch, name): f(x, y)
for name in "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift".split():
    cases[name] = lambda f=getattr(torch, name): f(i.abs(), j)
for name in "logical_and logical_or logical_xor".split():
    cases[name] = lambda f=getattr(torch, name): f(b, c)

cases.update({
    "bitwise_not": lambda: ~i,
    "logical_not": lambda: torch.logical_not(b),
    "trace": lambda: torch.trace(x),
    "round:decimals": lambda: torch.round(x, decimals=2),
    "nan_to_num": lambda: torch.nan_to_num(w, 5.0, 6.0, -7.0),
    "pow": lambda: torch.pow(p, y),
    "pow:number": lambda: torch.pow(p, 2.5),
    "floor_divide": lambda: torch.div(i, j, rounding_mode="floor"),
    "floor_divide:number": lambda: torch.div(i, 4, rounding_mode="floor"),
    "xlogy": lambda: torch.xlogy(x, p),
    "xlogy:number": lambda: torch.xlogy(x, 2.0),
    "clamp_max": lambda: torch.clamp_max(x, 0.3),
    "clamp_min": lambda: torch.clamp_min(x, 0.3),
    "add": lambda: x + y,
    "add:alpha": lambda: torch.add(x, y, alpha=-0.5),
    "add:number": lambda: x + 2,
    "add:number alpha": lambda: torch.add(x, 2.0, alpha=3),
    "div": lambda: x / y,
    "div:integers": lambda: i / j,
    "div:trunc": lambda: torch.div(i, j, rounding_mode="trunc"),
    "div:floor": lambda: torch.div(x, 0.3, rounding_mode="floor"),
    "clamp": lambda: torch.clamp(x, -0.5, 0.5),
    "clamp:min": lambda: torch.clamp(x, min=-0.5),
    "clamp:tensors": lambda: torch.clamp(x, u - 1, u),
    "addcmul": lambda: torch.addcmul(x, y, u, value=0.5),
    "addcdiv": lambda: torch.addcdiv(x, y, p, value=0.5),
    "lerp": lambda: torch.lerp(x, y, u),
    "where": lambda: torch.where(b, x, y),
    "where:indices": lambda: list(torch.where(b)),
    "isclose": lambda: torch.isclose(x, x + 1e-6 * torch.arange(4.0) ** 4),
    "operators:number left": lambda: [1.5 - x, 2 / p, 3 * x, 4 + i],
    "operators:logic": lambda: [b & c, b | c, b ^ c, ~b, -x],
    "operators:remainder": lambda: [i % j, i % 3, x % 0.75],
    "operators:types": lambda: [i + 1, i + 1.5, i * b, half + 1, brain * 2.0],
    # matrix products
    "matmul": lambda: torch.matmul(a3, m),
    "mm": lambda: torch.mm(x, m),
    "bmm": lambda: torch.bmm(a3, b3),
    "mv": lambda: torch.mv(x, v),
    "dot": lambda: torch.dot(v, v + 1),
    "outer": lambda: torch.outer(z, v),
    "inner": lambda: torch.inner(x, y),
    "addmm": lambda: torch.addmm(n, x, m, beta=0.5, alpha=2),
    "addmv": lambda: torch.addmv(z, x, v, beta=0.5, alpha=2),
    "addr": lambda: torch.addr(x, z, v, beta=0.5, alpha=2),
    "addbmm": lambda: torch.addbmm(n, a3, b3, beta=0.5, alpha=2),
    "baddbmm": lambda: torch.baddbmm(c3, a3, b3, beta=0.5, alpha=2),
    "tensordot": lambda: torch.tensordot(a3, b3, dims=([0, 2], [0, 1])),
    "einsum": lambda: torch.einsum("bij,bjk->ik", a3, b3),
    "linalg.vector_norm": lambda: [torch.linalg.vector_norm(x), torch.linalg.vector_norm(a3, 3, (0, 2), True)],
    # reductions
    "sum": lambda: [x.sum(), i.sum(), b.sum(), x.sum(1), a3.sum((0, 2), keepdim=True), x.sum(dtype=torch.float64), a3.sum(1, keepdim=True),
                    half.sum(0, dtype=torch.float32)],
    "mean": lambda: [x.mean(), a3.mean((0, 2)), x.mean((1,), keepdim=True, dtype=torch.float64)],
    "nansum": lambda: torch.nansum(torch.where(w.isinf(), torch.zeros(()), w)),
    "prod": lambda: [x.prod(), x.prod(1, keepdim=True), i.prod(0)],
    "max": lambda: [x.max(), torch.max(x, y), *x.max(1), *x.max(0, keepdim=True)],
    "min": lambda: [x.min(), torch.min(x, y), *x.min(1), *x.min(0, keepdim=True)],
    "aminmax": lambda: [*x.aminmax(), *x.aminmax(dim=1, keepdim=True)],
    "amax": lambda: [x.amax(1), a3.amax((0, 2), keepdim=True)],
    "amin": lambda: [x.amin(1), a3.amin((0, 2), keepdim=True)],
    "argmax": lambda: [x.argmax(), x.argmax(1, keepdim=True)],
    "argmin": lambda: [x.argmin(), x.argmin(1, keepdim=True)],
    "all": lambda: [b.all(), b.all(1), b.all(0, keepdim=True)],
    "any": lambda: [b.any(), b.any(1), b.any(0, keepdim=True)],
    "median": lambda: x.median(),
    "logsumexp": lambda: [x.logsumexp(1), x.logsumexp(0, keepdim=True)],
    "norm": lambda: [x.norm(), x.norm(1), x.norm(2, 1, True), x.norm(3, 0)],
    "std": lambda: [x.std(), x.std(1), a3.std((0, 2), False, True), x.std(unbiased=False)],
    "var": lambda: [x.var(), x.var(1), a3.var((0, 2), False, True), x.var(unbiased=False)],
    "count_nonzero": lambda: [torch.count_nonzero(b), torch.count_nonzero(b, (1,))],
    "quantile": lambda: torch.quantile(x, torch.tensor([0.25, 0.5, 0.9]), 1, True),
    "cumsum": lambda: [x.cumsum(1), i.cumsum(0), i.cumsum(0, dtype=torch.float32)],
    "cumprod": lambda: x.cumprod(1),
    "logcumsumexp": lambda: x.logcumsumexp(1),
    "softmax": lambda: [x.softmax(1), half.softmax(1, dtype=torch.float32)],
    "log_softmax": lambda: [x.log_softmax(1), brain.log_softmax(0, dtype=torch.float32)],
    # sorting and counting
    "topk": lambda: [*x.topk(2), *x.topk(2, 0, False, True)],
    "sort": lambda: [*x.sort(), *x.sort(0, True), *torch.sort(j, dim=1, stable=True)],
    "argsort": lambda: [x.argsort(), x.argsort(0, True)],
    "kthvalue": lambda: [*x.kthvalue(2, 1)],
    "searchsorted": lambda: [torch.searchsorted(sorted_values, x), torch.searchsorted(sorted_values, x, out_int32=True, right=True)],
    "bucketize": lambda: torch.bucketize(x, sorted_values),
    "bincount": lambda: [torch.bincount(j.flatten(), minlength=8), torch.bincount(j.flatten(), x.flatten())],
    "unique": lambda: [*torch.unique(j, return_inverse=True, return_counts=True), torch.unique(torch.cat([x, x]), dim=0)],
    "isin": lambda: torch.isin(i, j),
    # shapes
    "view": lambda: [x.view(2, 6), x.view(-1)],
    "view_as": lambda: x.view_as(y.t().contiguous()),
    "reshape": lambda: x.t().reshape(2, -1),
    "permute": lambda: a3.permute(2, 0, 1),
    "expand": lambda: [v.expand(2, 4), z.unsqueeze(1).expand(3, 4)],
    "expand_as": lambda: v.expand_as(x),
    "broadcast_to": lambda: v.broadcast_to((3, 4)),
    "broadcast_tensors": lambda: list(torch.broadcast_tensors(v, z.unsqueeze(1))),
    "as_strided": lambda: x.as_strided((2, 2), (1, 3), 2),
    "t": lambda: [x.t(), x.T, a3.mT],
    "transpose": lambda: a3.transpose(0, -1),
    "swapaxes": lambda: [a3.swapaxes(0, 1), a3.swapdims(1, 2)],
    "movedim": lambda: [a3.movedim((0, 1), (2, 0)), a3.moveaxis((0,), (-1,))],
    "unsqueeze": lambda: [x.unsqueeze(1), x.unsqueeze(-1)],
    "squeeze": lambda: [x.view(1, 3, 1, 4).squeeze(), x.view(1, 3, 1, 4).squeeze(2)],
    "flatten": lambda: [a3.flatten(), a3.flatten(1), a3.flatten(0, 1), a3.ravel()],
    "unflatten": lambda: m.unflatten(0, (2, 2)),
    "narrow": lambda: x.narrow(1, 1, 2),
    "slice": lambda: x[:, 0:4:2],
    "select": lambda: [x.select(0, 1), x.select(1, -1)],
    "unfold": lambda: x.unfold(1, 2, 1),
    "diagonal": lambda: [x.diagonal(), a3.diagonal(1, 1, 2)],
    "diag": lambda: [v.diag(), x.diag(1)],
    "chunk": lambda: list(m.chunk(3, 1)),
    "split": lambda: [*m.split(2, 1), *m.split([1, 4], 1)],
    "tensor_split": lambda: [*m.tensor_split(2, 1), *m.tensor_split((1, 3), 1)],
    "unbind": lambda: [*x.unbind(), *x.unbind(1)],
    "repeat": lambda: x.repeat(2, 1, 2),
    "tile": lambda: x.tile((2,)),
    "flip": lambda: x.flip(0, 1),
    "roll": lambda: [x.roll(1), x.roll(1, 0), x.roll((1, 2), (0, 1))],
    "tril": lambda: [x.tril(), x.tril(1), a3.tril(-1)],
    "triu": lambda: [x.triu(), x.triu(1), a3.triu(-1)],
    "repeat_interleave": lambda: [x.repeat_interleave(2, 0), x.repeat_interleave(2), z.repeat_interleave(torch.tensor([1, 0, 2]))],
    "cat": lambda: [torch.cat([x, y]), torch.cat([x, n], 1)],
    "stack": lambda: torch.stack([x, y], 1),
    "hstack": lambda: torch.hstack([x, n]),
    "vstack": lambda: torch.vstack([x, v]),
    "meshgrid": lambda: [*torch.meshgrid(v, z, indexing="ij"), *torch.meshgrid(v, z, indexing="xy")],
    # gathering and scattering
    "gather": lambda: x.gather(0, index),
    "scatter": lambda: x.scatter(0, index[:1], y),
    "scatter_add": lambda: x.scatter_add(0, index, y),
    "index_select": lambda: [x.index_select(0, rows), x.index_select(1, rows)],
    "index_add": lambda: x.index_add(0, two, source, alpha=2),
    "index_copy": lambda: x.index_copy(0, two, source),
    "index_fill": lambda: x.index_fill(1, two, -1.5),
    "masked_fill": lambda: x.masked_fill(b, -math.inf),
    "masked_scatter": lambda: x.masked_scatter(b, y),
    "masked_select": lambda: x.masked_select(b),
    "take": lambda: x.take(torch.tensor([0, 11, 5])),
    "take_along_dim": lambda: [x.take_along_dim(x.argsort(1), 1), x.take_along_dim(index)],
    "nonzero": lambda: b.nonzero(),
    "argwhere": lambda: b.argwhere(),
    "index:views": lambda: [x[1], x[1, 2], x[:, 1], x[1:, ::2], x[..., -1], x[None], x[-2:, None, 1:3], x[-1, 0]],
    "index:tensors": lambda: [x[rows], x[b], x[rows, torch.tensor([1, 2, 3])], a3[:, rows], x[:, b[0]]],
    "index_put:views": lambda: put(lambda t: t.__setitem__((slice(None), 1), z), lambda t: t.__setitem__(2, v), lambda t: t.__setitem__((0, 3), torch.tensor(9.0)),
                                   lambda t: t.__setitem__((slice(1, None), slice(None, None, 2)), torch.tensor(5.0))),
    "index_put:tensors": lambda: put(lambda t: t.__setitem__(two, source), lambda t: t.__setitem__(b, torch.tensor(3.0)), lambda t: t.__setitem__(b, 4.5)),
    "index_put:accumulate": lambda: put(lambda t: t.index_put_((rows,), y, accumulate=True)),
    # networks
    "F.linear": lambda: [F.linear(a3, x), F.linear(a3, x, z)],
    "gelu": lambda: [F.gelu(x), F.gelu(x, approximate="tanh")],
    "softplus": lambda: [F.softplus(x), F.softplus(x, 2, 1)],
    "F.leaky_relu": lambda: F.leaky_relu(x, 0.1),
    "F.cross_entropy": lambda: [F.cross_entropy(logits, targets), F.cross_entropy(logits, targets, reduction="sum"),
                                F.cross_entropy(logits, targets, reduction="none"), F.cross_entropy(logits, targets, class_weights, label_smoothing=0.1),
                                F.cross_entropy(logits, targets.clamp(min=0), ignore_index=0)],
    "F.nll_loss": lambda: [F.nll_loss(logits.log_softmax(1), targets.clamp(min=0)), F.nll_loss(logits.log_softmax(1), targets.clamp(min=0), class_weights, reduction="none")],
    "F.losses": lambda: [F.mse_loss(x, y), F.l1_loss(x, y, reduction="sum"), F.kl_div(x.log_softmax(1), y.log_softmax(1), log_target=True)],
    "F.layer_norm": lambda: F.layer_norm(x, (4,), v, None, 1e-3),
    "F.normalize": lambda: [F.normalize(x), F.normalize(x, 1, 0)],
    "F.one_hot": lambda: [F.one_hot(rows), F.one_hot(rows, 4)],
    "F.pad": lambda: [F.pad(x, (1, 2), value=7.0), F.pad(x, (0, 1, 2, 0)), F.pad(a3, (1, 1), mode="reflect"), F.pad(a3, (1, 2), mode="replicate"),
                      F.pad(a3, (1, 1), mode="circular")],
    "F.attention": lambda: [attention(query, key, value), attention(query, key, value, attention_mask),
                            attention(query, key, value, torch.where(attention_mask, 0.0, -2.0)),
                            attention(query, key, value, torch.ones(3, 5).tril().bool())],
    # conversions
    "to": lambda: [x.double(), x.half(), x.bfloat16(), i.float(), w[1:, :2].int(), x.bool(), b.long(), j.byte(), i.char(), i.short()],
    "arange": lambda: [torch.arange(5), torch.arange(1, 7, 2), torch.arange(0.0, 1.0, 0.25), torch.arange(3, dtype=torch.int32)],
    "linspace": lambda: [torch.linspace(0, 1, 5), torch.eye(2, 3), torch.full((2, 2), 3), torch.full((2,), 0.5)],
})


def put(*changes):
    results = []
    for change in changes:
        tensor = x.clone()
        change(tensor)
        results.append(tensor)
    return results


def attention(q, k, v, mask=None):
    scores = q.double() @ k.double().transpose(-2, -1) / math.sqrt(q.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ v.double()).float()


def encode(tensor):
    values = tensor.double() if tensor.is_floating_point() else tensor.long()
    flat = [str(e) if isinstance(e, float) and not math.isfinite(e) else e for e in values.flatten().tolist()]
    return {"type": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "values": flat}


def results(case):
    result = case()
    return [encode(tensor) for tensor in (result if isinstance(result, (list, tuple)) else [result])]


document = {"torch": torch.__version__, "inputs": {k: encode(t) for k, t in inputs.items()}, "cases": {k: results(f) for k, f in cases.items()}}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "operations.json")
with open(path, "w", encoding="utf-8") as file:
    file.write("{\n")
    file.write(f'"torch": {json.dumps(document["torch"])},\n')
    for section, last in (("inputs", False), ("cases", True)):
        file.write(f'"{section}": {{\n')
        file.write(",\n".join(f"{json.dumps(k)}: {json.dumps(t, separators=(',', ':'))}" for k, t in document[section].items()))
        file.write("\n}\n" if last else "\n},\n")
    file.write("}\n")
print(len(cases), "cases,", os.path.getsize(path), "bytes")
