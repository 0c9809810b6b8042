"""Losses as they are stored and sent."""

from __future__ import annotations

import numpy as np

#: Bytes per loss of each encoding.
BYTES_PER_LOSS = {"f16": 2, "f32": 4, "log8": 1}

# Code c of log8 stands for (129 ** (c / 254) - 1) / 4 nats; 255 is NaN.
_LOG8 = np.append((129.0 ** (np.arange(255) / 254) - 1) / 4, np.nan).astype(np.float32)


def decode_losses(data: bytes, encoding: str) -> np.ndarray:
    """Losses in nats, float32 [n], NaN where there is none, from bytes in an encoding ("f16", "f32" or "log8")."""
    if encoding == "f16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    if encoding == "f32":
        return np.frombuffer(data, "<f4").astype(np.float32)
    if encoding == "log8":
        return _LOG8[np.frombuffer(data, np.uint8)]
    raise ValueError(f"unknown loss encoding {encoding!r}; known are f16, f32, log8")
