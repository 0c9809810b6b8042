#!/usr/bin/env python3
"""Trains a small language model on the tokens that matter, in a plain PyTorch loop.

    rho scorer --reference reference --port 5001 --cache scores &
    python3 examples/train.py --scorer localhost:5001 --corpus corpus --ratio 0.6

The corpus is one of `rho corpus build`, made with the reference's tokenizer. Replace `Decoder` by any model that gives logits.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from torch import nn

from rho_client import ScorerClient, TokenShard, selective_loss


class Decoder(nn.Module):
    """A causal transformer."""

    def __init__(self, vocabulary: int, length: int, width: int = 128, layers: int = 2, heads: int = 4):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", torch.full((length, length), -math.inf).triu(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        x = self.tokens(ids) + self.positions(torch.arange(length, device=ids.device))
        for block in self.blocks:
            x = block(x, self.mask[:length, :length])
        return self.head(self.norm(x))


def batches(client: ScorerClient, corpus: Path, size: int):
    """Pairs (tokens, reference losses), [size, length] each, in the corpus' order. Losses are fetched ahead of their use."""
    description = json.loads((corpus / "corpus.json").read_text())
    for entry in description["shards"]:
        shard = TokenShard.open(corpus / entry["file"])
        for block in client.score_shard(shard, documents_see_each_other=description["documents_see_each_other"]):
            tokens = torch.as_tensor(shard.tokens[block.first_sequence:block.first_sequence + len(block.losses)].astype("int64"))
            losses = torch.as_tensor(block.losses)
            yield from zip(tokens.split(size), losses.split(size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", required=True, help="addresses, separated by commas")
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--ratio", type=float, default=0.6, help="share of tokens that count; 1 is plain training")
    parser.add_argument("--batch", type=int, default=16, help="sequences per step")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()

    description = json.loads((arguments.corpus / "corpus.json").read_text())
    torch.manual_seed(0)
    model = Decoder(description["vocabulary_size"], description["sequence_length"])
    optimizer = torch.optim.AdamW(model.parameters(), arguments.learning_rate, betas=(0.9, 0.95))
    with ScorerClient(arguments.scorer, tokenizer_fingerprint=description["tokenizer_fingerprint"]) as client:
        print(f"reference: {client.describe().description}")
        for step, (tokens, reference_losses) in enumerate(batches(client, arguments.corpus, arguments.batch), 1):
            loss = selective_loss(model(tokens), tokens, reference_losses, arguments.ratio)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 20 == 0 or step == 1:
                print(f"step {step}: loss on the selected tokens {loss.item():.3f}")
            if step == arguments.steps:
                break


if __name__ == "__main__":
    main()
