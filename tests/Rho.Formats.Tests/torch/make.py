#!/usr/bin/python3
"""Files as torch.save writes them, good and bad, and what PyTorch reads from the good ones.

Run with Debian's python3-torch:  /usr/bin/python3 make.py
Writes *.bin beside itself and expected.json: {file: {tensor: [dtype, shape, values]}}.
"""
import argparse, collections, io, json, os, pickle, zipfile
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def path(name):
    return os.path.join(HERE, name + ".bin")


def rewrite(source, name, change=lambda entry, data: data, method=zipfile.ZIP_STORED, skip=()):
    with zipfile.ZipFile(path(source)) as old, zipfile.ZipFile(path(name), "w", method) as new:
        for entry in old.namelist():
            if not entry.endswith(skip):
                new.writestr(zipfile.ZipInfo(entry), change(entry, old.read(entry)), compress_type=method)


def bad_pickle(name, data):
    rewrite("types", name, lambda entry, old: data if entry.endswith("data.pkl") else old)


def persistent(value, ids):
    """A pickle in which every string "@key" is a persistent id of ids."""
    class Pickler(pickle.Pickler):
        def persistent_id(self, x):
            return ids.get(x) if isinstance(x, str) and x.startswith("@") else None
    out = io.BytesIO()
    Pickler(out, 2).dump(value)
    return out.getvalue()


class Call:
    """Pickled as a call of what it is given."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


g = torch.Generator().manual_seed(1)
types = collections.OrderedDict((n.lower(), (torch.randn(3, 5, generator=g) * 20).to(t)) for t, n in NAMES.items())
types["scalar"] = torch.tensor(2.5)
types["empty"] = torch.empty(0, 7)
types["large"] = torch.randn(11, 30, generator=g)
whole = torch.arange(24, dtype=torch.float32).view(4, 6)
cube = torch.arange(60, dtype=torch.float16).view(3, 4, 5)
views = {"whole": whole, "transposed": whole.t(), "row": whole[2], "column": whole[:, 3], "steps": whole[::2, 1::3], "expanded": whole[:, :1].expand(4, 3),
         "cube": cube.permute(2, 0, 1), "plane": cube[:, 1], "parameter": torch.nn.Parameter(whole[1:3])}
good = {"types": types, "views": views, "module": torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()}
for name, value in good.items():
    torch.save(value, path(name))
torch.save(views, path("protocol4"), pickle_protocol=4)
good["protocol4"] = views

zipfile.ZIP64_LIMIT = 0                       # every size and the directory's place as zip64 has them
rewrite("views", "zip64")
zipfile.ZIP64_LIMIT = (1 << 31) - 1
good["zip64"] = views

with open(os.path.join(HERE, "expected.json"), "w") as f:
    json.dump({name + ".bin": {k: [NAMES[t.dtype], list(t.shape), t.detach().double().flatten().tolist()] for k, t in value.items()} for name, value in good.items()}, f)

# What has to be refused.
torch.save(types, path("bad-legacy"), _use_new_zipfile_serialization=False)
torch.save({"model": types}, path("bad-nested"))
torch.save({"w": whole, "args": argparse.Namespace(lr=1)}, path("bad-namespace"))
torch.save({"w": whole, "epoch": 3}, path("bad-number"))
torch.save([whole], path("bad-list"))
torch.save({"w": whole.to_sparse()}, path("bad-sparse"))
torch.save({"w": torch.quantize_per_tensor(whole, 0.1, 0, torch.qint8)}, path("bad-quantized"))
torch.save({"w": torch.complex(whole, whole)}, path("bad-complex"))
bad_pickle("bad-system", pickle.dumps({"w": Call(os.system, "touch /tmp/rho-was-executed")}, 2))
bad_pickle("bad-eval", pickle.dumps(Call(eval, "open('/tmp/rho-was-executed', 'w')"), 4))
bad_pickle("bad-bytes", pickle.dumps({"w": b"abc"}, 4))
bad_pickle("bad-object", pickle.dumps({"w": io.StringIO("abc")}, 2))
storage = ("storage", torch.FloatStorage, "0", "cpu", 15)
rebuild = torch._utils._rebuild_tensor_v2
hooks = collections.OrderedDict()
bad_pickle("bad-beyond", persistent({"w": Call(rebuild, "@0", 0, (4, 4), (4, 1), False, hooks)}, {"@0": storage}))
bad_pickle("bad-overflow", persistent({"w": Call(rebuild, "@0", 0, (1 << 40, 1 << 40), (1 << 62, 1), False, hooks)}, {"@0": storage}))
bad_pickle("bad-negative", persistent({"w": Call(rebuild, "@0", 14, (4, 3), (-1, 1), False, hooks)}, {"@0": storage}))
bad_pickle("bad-storage", persistent({"w": Call(rebuild, "@0", 0, (15,), (1,), False, hooks)}, {"@0": storage[:2] + ("99",) + storage[3:]}))
bad_pickle("bad-short", persistent({"w": Call(rebuild, "@0", 0, (16,), (1,), False, hooks)}, {"@0": storage[:4] + (16,)}))
bad_pickle("bad-persistent", persistent({"w": "@0"}, {"@0": ("module", "x")}))
rewrite("types", "bad-compressed", method=zipfile.ZIP_DEFLATED)
rewrite("types", "bad-no-pickle", skip="data.pkl")
rewrite("types", "bad-byteorder", lambda entry, data: b"big" if entry.endswith("byteorder") else data)
if not any(e.endswith("byteorder") for e in zipfile.ZipFile(path("types")).namelist()):
    with zipfile.ZipFile(path("bad-byteorder"), "a") as z:
        z.writestr(z.namelist()[0].split("/")[0] + "/byteorder", "big")
with open(path("bad-not-zip"), "wb") as f:
    f.write(b"version https://git-lfs.github.com/spec/v1\n")
