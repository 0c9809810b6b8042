"""What scorers say of tokens: how it is asked for, sent and given to the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional

import numpy as np

from ._proto import scoring_pb2 as wire
from .errors import RhoError
from .losses import decode_losses

ENCODINGS = {"f16": wire.LOSS_ENCODING_F16, "f32": wire.LOSS_ENCODING_F32, "log8": wire.LOSS_ENCODING_LOG8}


@dataclass(frozen=True)
class LossBlock:
    """Losses of consecutive sequences: float32 [sequences, length] in nats, NaN where there is none.

    Where the client asks for them, also of the distribution that each loss is taken from: `entropies`, float32 [sequences, length]
    nats; `top_ids`, int32 [sequences, length, k], the likeliest first; `top_log_probabilities`, float32 of the same shape. None
    where not asked for.
    """

    first_sequence: int
    losses: np.ndarray
    entropies: Optional[np.ndarray] = None
    top_ids: Optional[np.ndarray] = None
    top_log_probabilities: Optional[np.ndarray] = None


@dataclass(frozen=True)
class SequenceLosses:
    """Losses of one sequence: float32 [length] in nats, NaN where there is none; the rest as in LossBlock, without its first axis."""

    id: int
    losses: np.ndarray
    entropies: Optional[np.ndarray] = None
    top_ids: Optional[np.ndarray] = None
    top_log_probabilities: Optional[np.ndarray] = None


class ScoreFormat:
    """What is asked for of each token, and how its loss is encoded."""

    def __init__(self, encoding: str, entropy: bool, top_k: int):
        if encoding not in ENCODINGS:
            raise RhoError(f"unknown loss encoding {encoding!r}; known are f16, f32, log8")
        if top_k < 0:
            raise RhoError(f"top_k must be at least 0, not {top_k}")
        self._encoding = encoding
        self._entropy = entropy
        self._top_k = top_k
        self.message = wire.ScoreFormat(encoding=ENCODINGS[encoding], entropy=entropy, top_k=top_k)

    def decode(self, scores: wire.Scores) -> "Dict[str, np.ndarray]":
        """What scores hold, by the names of LossBlock: arrays of n tokens each. ValueError where they are not of one n above 0."""
        columns = {"losses": decode_losses(scores.losses, self._encoding)}
        if self._entropy:
            columns["entropies"] = decode_losses(scores.entropies, "f16")
        if self._top_k:
            columns["top_ids"] = np.frombuffer(scores.top_ids, "<u4").astype(np.int32).reshape(-1, self._top_k)
            columns["top_log_probabilities"] = decode_losses(scores.top_log_probabilities, "f16").reshape(-1, self._top_k)
        if len({len(column) for column in columns.values()}) != 1 or not len(columns["losses"]):
            raise ValueError("scores have parts that are not of the same number of tokens")
        return columns
