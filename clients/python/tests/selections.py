"""Trains as examples/train.py does for some steps, and writes what its selection saw and chose, for others to compare.

    python3 -m tests.selections SCORER CORPUS OUT STEPS RATIO

OUT: for each step [sequences, length] current losses and reference losses (float32) and marks (uint8: 1 selected), one after another.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from rho_client import ScorerClient, selective_loss

spec = importlib.util.spec_from_file_location("train", Path(__file__).parents[1] / "examples/train.py")
train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train)

scorer, corpus, out, steps, ratio = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
torch.manual_seed(0)
model = None
with ScorerClient(scorer) as client, open(out, "wb") as file:
    for step, (tokens, reference) in enumerate(train.batches(client, corpus, 8)):
        if step == steps:
            break
        if model is None:
            model = train.Decoder(client.describe().vocabulary_size, tokens.shape[1], width=32)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        logits = model(tokens)
        loss, marks = selective_loss(logits, tokens, reference, ratio, return_selected=True)
        losses = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(tokens), -1)
        current = torch.cat((torch.full((len(tokens), 1), float("nan")), losses.detach()), 1)
        torch.testing.assert_close(loss, current[marks].mean())
        for values in (current.numpy(), reference.numpy(), marks.numpy().astype(np.uint8)):
            file.write(np.ascontiguousarray(values).tobytes())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
