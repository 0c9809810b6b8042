"""Token shards: arrays in memory, or safetensors files as Rho's corpora have them."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Dict, Iterator, Optional, Tuple, Union

import numpy as np

from .errors import RhoError

_DTYPES = {
    "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8",
}


def open_safetensors(path: Union[str, os.PathLike]) -> Tuple[Dict[str, np.ndarray], Dict[str, str]]:
    """Tensors of a safetensors file, mapped into memory, and its metadata. Types that NumPy lacks come as bytes (U8)."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > os.path.getsize(path) - 8:
                raise RhoError(f"{path}: not a valid safetensors file: its header does not fit into it")
            header = json.loads(file.read(size))
    except FileNotFoundError:
        raise RhoError(f"{path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RhoError(f"{path}: not a valid safetensors file: {error}") from error
    data = np.memmap(path, np.uint8, "r", offset=8 + size) if os.path.getsize(path) > 8 + size else np.empty(0, np.uint8)
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        if end > data.size:
            raise RhoError(f"{path}: tensor {name!r} goes past the file's end: it is truncated")
        dtype = _DTYPES.get(entry["dtype"])
        tensors[name] = data[first:end] if dtype is None else data[first:end].view(dtype).reshape(entry["shape"])
    return tensors, metadata


class TokenShard:
    """Sequences of equal length, [sequences, length], with the documents inside them.

    A shard is known by the SHA-256 of its tokens: losses that a scorer has cached for it come back without its tokens crossing
    the wire. Give `from_array` the same array in the same element type to meet the same losses again.
    """

    def __init__(self, tokens: np.ndarray, pieces: Optional[np.ndarray] = None):
        if tokens.ndim != 2 or tokens.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
            raise RhoError(f"tokens must be uint16 or uint32 [sequences, length], not {tokens.dtype} {list(tokens.shape)}")
        if tokens.shape[1] < 1:
            raise RhoError("sequences must have at least one token")
        self.tokens = tokens
        self._pieces = pieces
        self._sha256: Optional[str] = None
        self._layout_sha256: Dict[bool, str] = {}

    @classmethod
    def open(cls, path: Union[str, os.PathLike]) -> "TokenShard":
        """A shard of a Rho corpus: tensor `tokens`, and `documents` [pieces, 4] with rows (sequence, start, length, document)."""
        tensors, _ = open_safetensors(path)
        if "tokens" not in tensors:
            raise RhoError(f"{os.fspath(path)}: not a token shard: it has no tensor 'tokens'")
        return cls(tensors["tokens"], tensors.get("documents"))

    @classmethod
    def from_array(cls, tokens: "np.typing.ArrayLike", documents: "Optional[np.typing.ArrayLike]" = None) -> "TokenShard":
        """A shard of an integer array [sequences, length].

        documents: per token the number of its document in its sequence (0, 1, 2, ...) and -1 for padding; None: each sequence is
        one document without padding.
        """
        array = np.asarray(tokens)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise RhoError(f"tokens must be integers [sequences, length], not {array.dtype} {list(array.shape)}")
        if array.size and int(array.min()) < 0:
            sequence, position = np.argwhere(array < 0)[0]
            raise RhoError(f"token id {array[sequence, position]} in sequence {sequence} at position {position} is negative")
        if array.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
            array = array.astype("<u2" if array.size == 0 or int(array.max()) < 65536 else "<u4")
        pieces = None
        if documents is not None:
            numbers = np.asarray(documents)
            if numbers.shape != array.shape:
                raise RhoError(f"documents must have the tokens' shape {list(array.shape)}, not {list(numbers.shape)}")
            pieces = _pieces_of(numbers)
        return cls(np.ascontiguousarray(array), pieces)

    @property
    def sequences(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        """Tokens of each sequence."""
        return self.tokens.shape[1]

    @property
    def sha256(self) -> str:
        """The shard's identity: SHA-256 over the line "TYPE SEQUENCES LENGTH" and the tokens' bytes."""
        if self._sha256 is None:
            kind = "U16" if self.tokens.dtype == np.dtype("<u2") else "U32"
            digest = hashlib.sha256(f"{kind} {self.sequences} {self.length}\n".encode())
            step = max(1, (1 << 20) // self.length)
            for first in range(0, self.sequences, step):
                digest.update(np.ascontiguousarray(self.tokens[first:first + step]))
            self._sha256 = digest.hexdigest()
        return self._sha256

    def documents(self, first: int, count: int) -> np.ndarray:
        """Per token of `count` sequences the number of its document within its sequence, -1 for padding; int32 [count, length]."""
        numbers = np.zeros((count, self.length), np.int32)
        if self._pieces is None:
            return numbers
        numbers -= 1
        begin, end = np.searchsorted(self._pieces[:, 0], [first, first + count])
        last = (-1, -1)
        number = 0
        for sequence, start, length, document in self._pieces[begin:end].tolist():
            number = 0 if sequence != last[0] else number if document == last[1] else number + 1
            last = (sequence, document)
            numbers[sequence - first, start:start + length] = number
        return numbers

    def layout(self, first: int, count: int, documents_see_each_other: bool) -> np.ndarray:
        """Layout bytes as scoring.proto defines them: 0 goes on, 1 begins a document, 2 padding; uint8 [count, length]."""
        numbers = self.documents(first, count)
        layout = np.where(numbers < 0, 2, 0).astype(np.uint8)
        if not documents_see_each_other:
            # The last document seen at or before each position, padding left out.
            seen = np.maximum.accumulate(numbers, axis=1)
            begins = np.zeros_like(layout, bool)
            begins[:, 1:] = (numbers[:, 1:] >= 0) & (seen[:, :-1] >= 0) & (seen[:, 1:] != seen[:, :-1])
            layout[begins] = 1
        return layout

    def layout_sha256(self, documents_see_each_other: bool) -> str:
        """SHA-256 of all layout bytes; empty where all of them are 0."""
        if self._pieces is None:
            return ""
        if documents_see_each_other not in self._layout_sha256:
            digest, used = hashlib.sha256(), False
            step = max(1, (1 << 20) // self.length)
            for first in range(0, self.sequences, step):
                part = self.layout(first, min(step, self.sequences - first), documents_see_each_other)
                used = used or bool(part.any())
                digest.update(part)
            self._layout_sha256[documents_see_each_other] = digest.hexdigest() if used else ""
        return self._layout_sha256[documents_see_each_other]

    def blocks(self, documents_see_each_other: bool, max_bytes: int, first_sequence: int, end_sequence: int) -> Iterator[Tuple[int, bytes, bytes]]:
        """(first token, token bytes, layout bytes or empty) of consecutive parts, of at most `max_bytes`, of a range of sequences."""
        has_layout = self.layout_sha256(documents_see_each_other) != ""
        at_once = max_bytes // (self.tokens.dtype.itemsize + has_layout)
        step = max(1, at_once // self.length)
        for first in range(first_sequence, end_sequence, step):
            count = min(step, end_sequence - first)
            tokens = np.ascontiguousarray(self.tokens[first:first + count]).reshape(-1)
            layout = self.layout(first, count, documents_see_each_other).reshape(-1) if has_layout else None
            for start in range(0, tokens.size, at_once):
                part = slice(start, start + at_once)
                yield first * self.length + start, tokens[part].tobytes(), b"" if layout is None else layout[part].tobytes()


def _pieces_of(documents: np.ndarray) -> np.ndarray:
    rows = []
    for sequence, numbers in enumerate(documents):
        edges = np.flatnonzero(np.diff(numbers)) + 1
        starts = np.concatenate(([0], edges))
        ends = np.concatenate((edges, [numbers.size]))
        rows += [(sequence, start, end - start, numbers[start]) for start, end in zip(starts, ends) if end > start and numbers[start] >= 0]
    return np.array(rows, np.int64).reshape(-1, 4)
