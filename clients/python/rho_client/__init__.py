"""Reference losses from Rho scorers for training loops of your own.

    from rho_client import ScorerClient, selective_loss

    with ScorerClient("localhost:5001") as scorer:
        for block in scorer.score_shard(tokens):          # tokens: [sequences, length]
            ...                                            # block.losses: float32 [n, length]

    loss = selective_loss(model(batch).logits, batch, reference_losses, ratio=0.6)
"""

from .client import Coverage, LossBlock, Reference, ScorerClient, ScorerInfo, SequenceLosses
from .errors import CorruptData, Mismatch, RhoError, Unauthenticated, Unavailable
from .losses import decode_losses
from .shards import TokenShard

__version__ = "0.1.0"

__all__ = [
    "CorruptData", "Coverage", "LossBlock", "Mismatch", "Reference", "RhoError", "ScorerClient", "ScorerInfo", "SequenceLosses",
    "TokenShard", "Unauthenticated", "Unavailable", "decode_losses", "selective_loss", "select_tokens",
]


def __getattr__(name: str):
    # PyTorch is loaded only where its part is used.
    if name in ("selective_loss", "select_tokens"):
        from . import selection
        return getattr(selection, name)
    raise AttributeError(f"module 'rho_client' has no attribute {name!r}")
