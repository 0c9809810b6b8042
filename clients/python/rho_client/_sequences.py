"""Single sequences on their way to scorers and their losses on the way back."""

from __future__ import annotations

import threading
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

import grpc
import numpy as np

from ._failover import Agreement
from ._proto import scoring_pb2 as wire
from ._replicas import Metadata, Replica
from ._scores import ScoreFormat, SequenceLosses
from ._streams import Stop
from .errors import RhoError
from .shards import TokenShard

_MAX_OPEN_TOKENS = 262_144  # sent and not answered


class Exchange:
    """Sequences on their way to scorers and losses on their way back, over as many streams one after another as it takes."""

    def __init__(self, sequences: "Iterable[object]", score_format: ScoreFormat, agreement: Agreement, metadata: Metadata):
        self._source = _numbered(sequences)
        self._format = score_format
        self._agreement = agreement
        self._metadata = metadata
        self._unanswered: "Dict[int, Tuple[np.ndarray, bytes]]" = {}
        self._room = threading.Condition()
        self._open_tokens = 0
        self._source_ended = False
        self._source_failure: Optional[BaseException] = None
        self._taking = threading.Lock()
        self._taken: Optional[Tuple[int, np.ndarray, bytes]] = None

    @property
    def _done(self) -> bool:
        return self._source_ended and not self._unanswered

    def run(self, replica: Replica, stop: Stop) -> Iterator[SequenceLosses]:
        ended = threading.Event()
        failed = threading.Event()

        def message(number: int, tokens: np.ndarray, layout: bytes) -> wire.ScoreRequest:
            return wire.ScoreRequest(sequence=wire.Sequence(id=number, tokens=tokens.astype("<u4", copy=False).tobytes(), layout=layout))

        def requests() -> Iterator[wire.ScoreRequest]:
            assert self._agreement.reference is not None
            yield wire.ScoreRequest(open=wire.ScoreOpen(
                reference=self._agreement.reference.fingerprint, tokenizer_fingerprint=self._agreement.tokenizer, format=self._format.message, token_type=wire.TOKEN_TYPE_U32))
            for number, (tokens, layout) in list(self._unanswered.items()):
                yield message(number, tokens, layout)
            while not ended.is_set():
                # The source outlives streams: what one took and did not send, the next one sends.
                with self._taking:
                    if self._taken is None and not self._source_ended:
                        try:
                            self._taken = next(self._source, None)
                        except BaseException as error:  # the caller's own: shown to the caller
                            self._source_failure = error
                            failed.set()
                            call.cancel()
                            return
                        self._source_ended = self._taken is None
                    if self._taken is None:
                        return
                    number, tokens, layout = self._taken
                    with self._room:
                        while self._open_tokens and self._open_tokens + tokens.size > _MAX_OPEN_TOKENS and not ended.is_set():
                            self._room.wait(0.5)
                        if ended.is_set():
                            return
                        if number in self._unanswered:
                            self._source_failure = RhoError(f"sequence id {number} waits for its losses already; ids must be unique")
                            failed.set()
                            call.cancel()
                            return
                        self._unanswered[number] = (tokens, layout)
                        self._open_tokens += tokens.size
                    self._taken = None
                yield message(number, tokens, layout)

        call = replica.stub.Score(requests(), metadata=self._metadata)
        partial: Dict[int, List[Dict[str, np.ndarray]]] = {}
        try:
            with stop.cancelling(call):
                for response in call:
                    if response.id not in self._unanswered:
                        raise replica.broken(f"answered sequence {response.id}, which was not asked for")
                    parts = partial.setdefault(response.id, [])
                    filled = sum(len(part["losses"]) for part in parts)
                    size = self._unanswered[response.id][0].size
                    try:
                        columns = self._format.decode(response.scores)
                    except ValueError as error:
                        raise replica.broken(f"sent what cannot be read: {error}") from error
                    count = len(columns["losses"])
                    if response.first_token != filled or filled + count > size:
                        raise replica.broken(f"sent losses of token {response.first_token} of sequence {response.id} where {filled} was next")
                    parts.append(columns)
                    if filled + count < size:
                        continue
                    del partial[response.id]
                    with self._room:
                        del self._unanswered[response.id]
                        self._open_tokens -= size
                        self._room.notify_all()
                    yield SequenceLosses(response.id, **{name: np.concatenate([part[name] for part in parts]) for name in columns})
        except grpc.RpcError:
            if failed.is_set() and self._source_failure is not None:
                raise self._source_failure
            raise
        finally:
            ended.set()
            with self._room:
                self._room.notify_all()
            call.cancel()
        if not self._done:
            raise replica.broken("ended the stream before all sequences were answered")


def _numbered(sequences: "Iterable[object]") -> "Iterator[Tuple[int, np.ndarray, bytes]]":
    for index, sequence in enumerate(sequences):
        number, tokens, documents = index, sequence, None
        if isinstance(sequence, tuple):
            number, tokens = sequence[0], sequence[1]
            documents = sequence[2] if len(sequence) > 2 else None
        array = np.asarray(tokens)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise RhoError(f"sequence {number}: tokens must be integers [length], not {array.dtype} {list(array.shape)}")
        if array.size and int(array.min()) < 0:
            raise RhoError(f"sequence {number}: token id {int(array.min())} at position {int(array.argmin())} is negative")
        layout = b""
        if documents is not None:
            shard = TokenShard.from_array(array[None], np.asarray(documents)[None])
            layout = shard.layout(0, 1, documents_see_each_other=False).tobytes()
        yield int(number), array.astype("<u4"), layout
