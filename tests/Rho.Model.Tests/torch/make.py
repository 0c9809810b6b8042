#!/usr/bin/python3
"""The weights of models of ../data, saved again as PyTorch saves them: in one file, and in two with an index.

Run with Debian's python3-torch:  /usr/bin/python3 make.py
"""
import collections, json, os, struct
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = bytearray(f.read())
    return collections.OrderedDict(
        (name, torch.frombuffer(data, dtype=torch.float32, count=(entry["data_offsets"][1] - entry["data_offsets"][0]) // 4, offset=entry["data_offsets"][0]).view(entry["shape"]).clone())
        for name, entry in header.items() if name != "__metadata__")


llama = read_safetensors(os.path.join(HERE, os.pardir, "data", "llama", "model.safetensors"))
os.makedirs(os.path.join(HERE, "whole"), exist_ok=True)
torch.save(llama, os.path.join(HERE, "whole", "pytorch_model.bin"))

# Tied weights share their storage, as a state dictionary of a tied model has them.
tied = read_safetensors(os.path.join(HERE, os.pardir, "data", "llama-tied", "model.safetensors"))
tied["lm_head.weight"] = tied["model.embed_tokens.weight"]
os.makedirs(os.path.join(HERE, "sharded"), exist_ok=True)
names = sorted(tied)
shards = {"pytorch_model-00001-of-00002.bin": names[:10], "pytorch_model-00002-of-00002.bin": names[10:]}
for file, part in shards.items():
    torch.save({name: tied[name] for name in part}, os.path.join(HERE, "sharded", file))
with open(os.path.join(HERE, "sharded", "pytorch_model.bin.index.json"), "w") as f:
    json.dump({"metadata": {"total_size": sum(t.numel() * 4 for t in tied.values())}, "weight_map": {name: file for file, part in shards.items() for name in part}}, f, indent=1)
    f.write("\n")
