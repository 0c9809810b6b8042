"""The stream of one shard's losses from one scorer."""

from __future__ import annotations

import queue
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np

from ._failover import Agreement
from ._proto import scoring_pb2 as wire
from ._replicas import Metadata, Replica
from ._scores import LossBlock, ScoreFormat
from ._streams import Stop, watched
from .shards import TokenShard

_MESSAGE_BYTES = 80_000  # of tokens and layout; messages stay under 85,000


class ShardReader:
    """Losses of a shard, over as many streams one after another as it takes, each from the first sequence that did not arrive."""

    def __init__(
        self, shard: TokenShard, see: bool, first: int, end: int, score_format: ScoreFormat, agreement: Agreement, metadata: Metadata, stall_timeout: float,
    ):
        self._shard = shard
        self._see = see
        self._reached = first
        self._end = end
        self._format = score_format
        self._agreement = agreement
        self._metadata = metadata
        self._stall_timeout = stall_timeout

    def read(self, replica: Replica, stop: Stop) -> Iterator[LossBlock]:
        """Goes on over one stream."""
        if self._reached == self._end:
            return
        shard, length = self._shard, self._shard.length
        reference = self._agreement.reference
        open_request = wire.ScoreShardRequest(open=wire.ShardOpen(
            reference=reference.fingerprint if reference else "", tokenizer_fingerprint=self._agreement.tokenizer,
            shard=identity(shard, self._see), first_sequence=self._reached, end_sequence=self._end, format=self._format.message, token_ranges=True))
        asked: "queue.SimpleQueue[Optional[List[Tuple[int, int]]]]" = queue.SimpleQueue()  # ranges of sequences; None at the end
        ended = False

        def requests() -> Iterator[wire.ScoreShardRequest]:
            yield open_request
            while (ranges := asked.get()) is not None:
                for first, end in ranges:
                    for token, tokens, layout in shard.blocks(self._see, _MESSAGE_BYTES, first, end):
                        if ended:
                            return
                        yield wire.ScoreShardRequest(tokens=wire.TokenBlock(first_token=token, tokens=tokens, layout=layout))

        call = replica.stub.ScoreShard(requests(), metadata=self._metadata)
        next_token = self._reached * length
        begun: Dict[str, np.ndarray] = {}  # of a sequence whose scores come in several messages
        own = (self._end - self._reached) * length
        replica.own_tokens += own
        try:
            with stop.cancelling(call):
                for response in watched(call, self._stall_timeout):
                    kind = response.WhichOneof("kind")
                    if kind == "send_tokens":
                        asked.put(self._ranges(response.send_tokens, replica))
                    elif kind == "block":
                        if response.block.first_token != next_token:
                            raise replica.broken(f"sent losses of token {response.block.first_token} where {next_token} was next")
                        try:
                            columns = self._format.decode(response.block.scores)
                        except ValueError as error:
                            raise replica.broken(f"sent what cannot be read: {error}") from error
                        tokens = len(columns["losses"])
                        next_token += tokens
                        replica.own_tokens -= tokens
                        own -= tokens
                        begun = {name: np.concatenate((begun[name], column)) for name, column in columns.items()} if begun else columns
                        have = len(begun["losses"])
                        whole = have // length
                        if whole:
                            block = {name: column[:whole * length].reshape(whole, length, *column.shape[1:]) for name, column in begun.items()}
                            begun = {name: column[whole * length:] for name, column in begun.items()} if have % length else {}
                            first = (next_token - have) // length
                            self._reached = first + whole
                            yield LossBlock(first, **block)
                        if next_token == self._end * length:
                            return
            raise replica.broken("ended the stream before the last sequence")
        finally:
            replica.own_tokens -= own
            ended = True
            asked.put(None)
            call.cancel()

    def _ranges(self, message: wire.SendTokens, replica: Replica) -> List[Tuple[int, int]]:
        ranges = [(part.first_sequence, part.end_sequence) for part in message.ranges] or [(0, self._shard.sequences)]
        for first, end in ranges:
            if not 0 <= first < end <= self._shard.sequences:
                raise replica.broken(f"asked for tokens of sequences {first} to {end} of {self._shard.sequences}")
        return ranges


def identity(shard: TokenShard, documents_see_each_other: bool) -> wire.Shard:
    return wire.Shard(
        sha256=shard.sha256, token_type=wire.TOKEN_TYPE_U16 if shard.tokens.dtype.itemsize == 2 else wire.TOKEN_TYPE_U32,
        sequences=shard.sequences, length=shard.length, layout_sha256=shard.layout_sha256(documents_see_each_other))
