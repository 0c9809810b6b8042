"""The scorer client: streams that reconnect and resume, over one scorer or many."""

from __future__ import annotations

import threading
import uuid
import weakref
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import grpc
import numpy as np

from ._failover import Agreement, Failover, Reference
from ._proto import scoring_pb2 as wire
from ._replicas import Replicas
from ._scores import LossBlock, ScoreFormat, SequenceLosses
from ._sequences import Exchange
from ._shard import ShardReader, identity
from ._streams import Stop, prefetched
from .errors import RhoError
from .shards import TokenShard

TokenArray = Union[np.ndarray, Sequence[int]]


@dataclass(frozen=True)
class ScorerInfo:
    """A scorer's load at a moment."""

    address: str
    queued_tokens: int
    streams: int
    tokens_per_second: float
    expected_wait_seconds: float
    cache: str
    cache_available: bool
    draining: bool


@dataclass(frozen=True)
class Coverage:
    """How much of a shard the scorers have cached; state is "cached", "in work" or "missing"."""

    state: str
    cached_sequences: int
    sequences: int
    seconds_left: float


class ScorerClient:
    """Reference losses from one or many scorers, whatever happens to some of them.

    addresses: "host:port", several of them (list or separated by commas), or "dns:///name:port" for all addresses of a name,
        which is looked up again every 30 s. With TLS give `root_certificates`, or `tls=True` for the system's.
    reference: fingerprint wanted; None: whatever the first scorer that answers serves by default.
    tokenizer_fingerprint: of the tokenizer that made the tokens; a scorer with another one is refused before any work.
    encoding: "f16", "f32" or "log8" on the wire and in the scorer's cache; what comes out is float32 in every case.
    entropy: also fetch the entropy of the reference's distribution at each token.
    top_k: also fetch this many most likely tokens with their log-probabilities, at each token.
    budget: seconds without progress, over all scorers and retries, after which `Unavailable` is raised.
    connect_timeout: seconds to reach the first scorer.
    stall_timeout: seconds of silence after which a scorer counts as dead; a scorer with nothing to send says so every 5 s.
    prefetch: blocks of about 16,384 tokens that `score_shard` fetches ahead of its reader.

    Safe to use from several threads; several shards may be read at once.
    """

    def __init__(
        self,
        addresses: Union[str, Sequence[str]],
        *,
        reference: Optional[str] = None,
        tokenizer_fingerprint: Optional[str] = None,
        encoding: str = "f16",
        entropy: bool = False,
        top_k: int = 0,
        api_key: Optional[str] = None,
        tls: bool = False,
        root_certificates: Optional[bytes] = None,
        client_certificate: Optional[bytes] = None,
        client_key: Optional[bytes] = None,
        budget: float = 300.0,
        connect_timeout: float = 15.0,
        stall_timeout: float = 20.0,
        prefetch: int = 8,
    ):
        if isinstance(addresses, str):
            addresses = [part.strip() for part in addresses.split(",")]
        if prefetch < 1:
            raise RhoError(f"prefetch must be at least 1, not {prefetch}")
        self._format = ScoreFormat(encoding, entropy, top_k)
        self._budget = budget
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._prefetch = prefetch
        self._metadata: List[Tuple[str, str]] = [("rho-client", uuid.uuid4().hex)]
        if api_key is not None:
            self._metadata.append(("authorization", f"Bearer {api_key}"))
        credentials = None
        if tls or root_certificates or client_certificate:
            credentials = grpc.ssl_channel_credentials(root_certificates, client_key, client_certificate)
        self._replicas = Replicas(addresses, credentials, self._metadata, stall_timeout)
        self._agreement = Agreement(reference or "", tokenizer_fingerprint or "", self._metadata, connect_timeout)
        self._failover = Failover(self._replicas, self._agreement)
        self._lock = threading.Lock()
        self._stops: "weakref.WeakSet[Stop]" = weakref.WeakSet()
        self._closed = False

    def __enter__(self) -> "ScorerClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all streams and connections. Whoever still reads a stream gets a RhoError."""
        with self._lock:
            self._closed = True
            stops = list(self._stops)
        for stop in stops:
            stop.set()
        self._replicas.close()

    def describe(self) -> Reference:
        """The reference that all scorers of this client serve. Asked once.

        Raises Unavailable where no scorer answers within the connect timeout, and Mismatch where reference or tokenizer is
        another than the one wanted.
        """
        if self._agreement.reference is None:
            self._failover.call(self._connect_timeout, self._new_stop(), lambda replica: None)  # to agree with one is all there is to do
        assert self._agreement.reference is not None
        return self._agreement.reference

    def score_shard(
        self,
        shard: Union[TokenShard, np.ndarray],
        *,
        documents_see_each_other: bool = True,
        first_sequence: int = 0,
        end_sequence: Optional[int] = None,
    ) -> Iterator[LossBlock]:
        """Losses of a shard in order, from `first_sequence` to before `end_sequence`, in blocks of whole sequences.

        shard: a TokenShard, or an integer array [sequences, length].
        documents_see_each_other: whether a token is predicted from earlier documents of its sequence too.

        A stream that breaks goes on at another scorer with the first sequence that did not arrive. Raises Unavailable when no
        scorer made progress for the budget, CorruptData when the tokens do not have the shard's hash, Mismatch and RhoError
        when a scorer refuses the shard; the message says why.

        A reader that leaves (`break`, an exception, `close()` of the iterator, or nothing refers to it any more) ends the stream
        and frees its work at the scorer at once.
        """
        if not isinstance(shard, TokenShard):
            shard = TokenShard.from_array(shard)
        end = shard.sequences if end_sequence is None else end_sequence
        if not 0 <= first_sequence <= end <= shard.sequences:
            raise RhoError(f"sequences {first_sequence} to {end} are not inside the shard's {shard.sequences}")
        self.describe()
        stop = self._new_stop()
        reader = ShardReader(shard, documents_see_each_other, first_sequence, end, self._format, self._agreement, self._metadata, self._stall_timeout)
        return prefetched(lambda: self._failover.run(self._budget, stop, lambda replica: reader.read(replica, stop)), self._prefetch, stop)

    def score(
        self,
        sequences: "Iterable[Union[TokenArray, Tuple[int, TokenArray], Tuple[int, TokenArray, TokenArray]]]",
    ) -> Iterator[SequenceLosses]:
        """Losses of sequences made on the fly, in the order in which they get ready.

        sequences: token arrays, which are numbered 0, 1, 2, ...; or pairs (id, tokens); or triples (id, tokens, documents), where
        documents gives per token the number of its document, -1 for padding, and documents do not see each other.

        Sequences are taken from the iterable as scorers take them. Those without an answer are sent again when a scorer fails.
        """
        self.describe()
        exchange = Exchange(sequences, self._format, self._agreement, self._metadata)
        stop = self._new_stop()
        yield from self._failover.run(self._budget, stop, lambda replica: exchange.run(replica, stop))

    def info(self) -> List[ScorerInfo]:
        """Load of each scorer that answers."""
        self.describe()
        infos = []
        for replica in self._replicas.all():
            try:
                info = replica.stub.Info(wire.InfoRequest(), timeout=2, metadata=self._metadata)
            except grpc.RpcError:
                continue
            infos.append(ScorerInfo(
                replica.address, info.queued_tokens, info.streams, info.tokens_per_second, info.expected_wait_ms / 1e3,
                info.cache, info.cache_available, info.draining))
        return infos

    def coverage(self, shards: Sequence[TokenShard], *, documents_see_each_other: bool = True) -> List[Coverage]:
        """How much of each shard the scorers have cached."""
        reference = self.describe()
        states = {wire.COVERAGE_STATE_CACHED: "cached", wire.COVERAGE_STATE_IN_WORK: "in work", wire.COVERAGE_STATE_MISSING: "missing"}
        result: List[Coverage] = []
        for first in range(0, len(shards), 400):
            part = shards[first:first + 400]
            request = wire.CoverageRequest(
                reference=reference.fingerprint, format=self._format.message, shards=[identity(shard, documents_see_each_other) for shard in part])
            answers = self._failover.call(self._budget, self._new_stop(), lambda replica: replica.stub.Coverage(
                request, timeout=self._stall_timeout, metadata=self._metadata))
            result += [
                Coverage(states.get(answer.state, "missing"), answer.cached_sequences, shard.sequences, answer.time_left_ms / 1e3)
                for answer, shard in zip(answers.shards, part)]
        return result

    def _new_stop(self) -> Stop:
        """A stop that closing the client sets."""
        stop = Stop()
        with self._lock:
            self._stops.add(stop)
            if self._closed:
                stop.set()
        return stop
