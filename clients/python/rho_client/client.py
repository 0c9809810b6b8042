"""The scorer client: streams that reconnect and resume, over one scorer or many."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import grpc
import numpy as np

from ._proto import scoring_pb2 as wire
from ._proto import scoring_pb2_grpc
from ._streams import Silence, Stop, prefetched, watched
from .errors import CorruptData, Mismatch, RhoError, Unauthenticated, Unavailable
from .losses import BYTES_PER_LOSS, decode_losses
from .shards import TokenShard

_ENCODINGS = {"f16": wire.LOSS_ENCODING_F16, "f32": wire.LOSS_ENCODING_F32, "log8": wire.LOSS_ENCODING_LOG8}
_MESSAGE_BYTES = 80_000  # of tokens and layout; messages stay under 85,000
_MAX_OPEN_TOKENS = 262_144  # of `score`: sent and not answered
_MAX_INTERNAL_FAILURES = 4
_LOOKUP_SECONDS = 30.0
_AVOID_SECONDS = 3.0

TokenArray = Union[np.ndarray, Sequence[int]]


@dataclass(frozen=True)
class Reference:
    """The reference behind a scorer."""

    fingerprint: str
    tokenizer_fingerprint: str
    vocabulary_size: int
    context_length: int
    description: str
    encodings: Tuple[str, ...]
    max_top_k: int  # 0: neither top-k nor entropies are offered


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


class _ReplicaFailed(Exception):
    """A scorer failed in a way that another one, or the same one later, may not."""

    def __init__(self, address: str, reason: str, retry_after: Optional[float] = None, internal: bool = False):
        super().__init__(f"{address}: {reason}")
        self.retry_after = retry_after
        self.internal = internal


class _Replica:
    def __init__(self, address: str, channel: grpc.Channel):
        self.address = address
        self.channel = channel
        self.stub = scoring_pb2_grpc.ReferenceScorerStub(channel)
        self.agreed = False
        self.failed_at = -1e9
        self.own_tokens = 0

    @property
    def failed_lately(self) -> bool:
        return time.monotonic() - self.failed_at < _AVOID_SECONDS


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
        self._addresses = [_parse(address) for address in addresses]
        if not self._addresses:
            raise RhoError("scorer client: no address is given; expected such as localhost:5001")
        if encoding not in _ENCODINGS:
            raise RhoError(f"unknown loss encoding {encoding!r}; known are f16, f32, log8")
        if prefetch < 1:
            raise RhoError(f"prefetch must be at least 1, not {prefetch}")
        if top_k < 0:
            raise RhoError(f"top_k must be at least 0, not {top_k}")
        self._encoding = encoding
        self._entropy = entropy
        self._top_k = top_k
        self._wanted = reference or ""
        self._tokenizer = tokenizer_fingerprint or ""
        self._budget = budget
        self._connect_timeout = connect_timeout
        self._stall_timeout = stall_timeout
        self._prefetch = prefetch
        self._credentials = None
        if tls or root_certificates or client_certificate:
            self._credentials = grpc.ssl_channel_credentials(root_certificates, client_key, client_certificate)
        self._metadata: List[Tuple[str, str]] = [("rho-client", uuid.uuid4().hex)]
        if api_key is not None:
            self._metadata.append(("authorization", f"Bearer {api_key}"))
        self._lock = threading.Lock()
        self._replicas: Dict[str, _Replica] = {}
        self._left: List[_Replica] = []
        self._looked_up_at = -1e9
        self._reference: Optional[Reference] = None
        self._probe: Optional[np.ndarray] = None
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
        for replica in [*self._replicas.values(), *self._left]:
            replica.channel.close()

    def describe(self) -> Reference:
        """The reference that all scorers of this client serve. Asked once.

        Raises Unavailable where no scorer answers within the connect timeout, and Mismatch where reference or tokenizer is
        another than the one wanted.
        """
        if self._reference is None:
            self._retry(self._connect_timeout, lambda progress: self._on_one(progress, lambda replica: None))
        assert self._reference is not None
        return self._reference

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
        return prefetched(lambda: self._shard_blocks(shard, documents_see_each_other, first_sequence, end, stop), self._prefetch, stop)

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
        exchange = _Exchange(_numbered(sequences), self)
        stop = self._new_stop()
        while not exchange.done:
            # A stream that gave answers before it broke counts as progress: the next one starts with fresh patience.
            yield from self._retry_iterating(exchange, stop)

    def info(self) -> List[ScorerInfo]:
        """Load of each scorer that answers."""
        self.describe()
        infos = []
        for replica in self._all():
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
                reference=reference.fingerprint, format=self._format(), shards=[_identity(shard, documents_see_each_other) for shard in part])
            answers: List[wire.CoverageResponse] = []
            self._retry(self._budget, lambda progress: self._on_one(progress, lambda replica: answers.append(
                replica.stub.Coverage(request, timeout=self._stall_timeout, metadata=self._metadata))))
            result += [
                Coverage(states.get(answer.state, "missing"), answer.cached_sequences, shard.sequences, answer.time_left_ms / 1e3)
                for answer, shard in zip(answers[-1].shards, part)]
        return result

    # Retries and the choice among scorers

    def _retry(self, budget: float, attempt: "Callable[[_Progress], None]") -> None:
        progress = _Progress(budget, self._new_stop())
        while True:
            try:
                return attempt(progress)
            except _ReplicaFailed as failure:
                progress.wait_after(failure, self._names())

    def _retry_iterating(self, exchange: "_Exchange", stop: Stop) -> Iterator[SequenceLosses]:
        progress = _Progress(self._budget, stop)
        while True:
            replica = self._choose(progress)
            try:
                with _translating(replica, stop):
                    self._agree(replica, stop)
                    for answer in exchange.run(replica, stop):
                        progress.step()
                        yield answer
                return
            except _ReplicaFailed as failure:
                progress.failed(replica)
                if progress.steps == 0:
                    progress.wait_after(failure, self._names())
                else:
                    return

    def _on_one(self, progress: "_Progress", work: "Callable[[_Replica], None]") -> None:
        """Lets one scorer do something. An attempt that got somewhere before its scorer failed returns."""
        before = progress.steps
        replica = self._choose(progress)
        try:
            with _translating(replica, progress.stop):
                self._agree(replica, progress.stop)
                work(replica)
        except _ReplicaFailed:
            progress.failed(replica)
            if progress.steps == before:
                raise

    def _new_stop(self) -> Stop:
        """A stop that closing the client sets."""
        stop = Stop()
        with self._lock:
            self._stops.add(stop)
            if self._closed:
                stop.set()
        return stop

    def _agree(self, replica: _Replica, stop: Stop) -> None:
        """On first use of a scorer: what it serves is what is wanted and what the other scorers serve."""
        if replica.agreed:
            return
        wanted = self._reference.fingerprint if self._reference else self._wanted
        request = wire.DescribeRequest(reference=wanted, tokenizer_fingerprint=self._tokenizer)
        with stop.cancelling(replica.stub.Describe.future(request, timeout=self._connect_timeout, metadata=self._metadata)) as call:
            answer = call.result()
        probe = np.frombuffer(answer.probe_losses, "<f4")
        with self._lock:
            if self._reference is None:
                names = {number: name for name, number in _ENCODINGS.items()}
                self._reference = Reference(
                    answer.reference, answer.tokenizer_fingerprint, answer.vocabulary_size, answer.context_length, answer.description,
                    tuple(names[encoding] for encoding in answer.encodings if encoding in names), answer.max_top_k)
                self._probe = probe
        assert self._probe is not None
        if probe.shape != self._probe.shape or not np.allclose(probe, self._probe, rtol=0.02, atol=0.05, equal_nan=True):
            raise Mismatch(
                f"scorer {replica.address} claims reference {answer.reference} but computes other losses than the scorers before it "
                "(probe batch differs): it or they are broken; nothing of it was used")
        replica.agreed = True

    def _choose(self, progress: "_Progress") -> _Replica:
        """Of the scorers that work the one with the fewest queued tokens, by chance among equals; the last that failed comes last."""
        progress.stop.check()
        replicas = self._all()
        if len(replicas) == 1:
            return replicas[0]
        calls = [(replica, replica.stub.Info.future(wire.InfoRequest(), timeout=1, metadata=self._metadata)) for replica in replicas if not replica.failed_lately]
        load = {}
        for replica, call in calls:
            try:
                answer = call.result()
                load[replica] = 1 << 62 if answer.draining else max(answer.queued_tokens, replica.own_tokens)
            except grpc.RpcError:
                replica.failed_at = time.monotonic()
        return min(replicas, key=lambda replica: (replica is progress.last_failed, replica.failed_lately, load.get(replica, 0), random.random()))

    def _all(self) -> List[_Replica]:
        with self._lock:
            named = any(is_name for _, is_name in self._addresses)
            if self._replicas and (not named or time.monotonic() - self._looked_up_at < _LOOKUP_SECONDS):
                return list(self._replicas.values())
            found: Dict[str, _Replica] = {}
            try:
                for address, is_name in self._addresses:
                    for target in _look_up(address) if is_name else [address]:
                        found[target] = self._replicas.get(target) or _Replica(target, self._connect(target, address))
            except OSError as error:
                if not self._replicas:
                    raise _ReplicaFailed(address, f"cannot be looked up: {error}") from error
                found = dict(self._replicas)
            self._left += [replica for target, replica in self._replicas.items() if target not in found]
            self._replicas = found
            self._looked_up_at = time.monotonic()
            return list(found.values())

    def _connect(self, target: str, name: str) -> grpc.Channel:
        options = [
            ("grpc.max_receive_message_length", 1 << 20),
            ("grpc.keepalive_time_ms", int(self._stall_timeout * 500)),
            ("grpc.keepalive_timeout_ms", int(self._stall_timeout * 500)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_retries", 0),
            # A scorer that comes back is to be seen soon; this client waits between attempts itself.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
        ]
        if self._credentials is None:
            return grpc.insecure_channel(target, options)
        host = name.rsplit(":", 1)[0].strip("[]")
        return grpc.secure_channel(target, self._credentials, [*options, ("grpc.ssl_target_name_override", host)])

    def _names(self) -> str:
        return ", ".join(address for address, _ in self._addresses)

    def _format(self) -> wire.ScoreFormat:
        return wire.ScoreFormat(encoding=_ENCODINGS[self._encoding], entropy=self._entropy, top_k=self._top_k)

    def _decode(self, scores: wire.Scores, replica: _Replica) -> "Dict[str, np.ndarray]":
        """What scores hold, by the names of LossBlock: arrays of n tokens each."""
        columns = {"losses": decode_losses(scores.losses, self._encoding)}
        if self._entropy:
            columns["entropies"] = decode_losses(scores.entropies, "f16")
        if self._top_k:
            columns["top_ids"] = np.frombuffer(scores.top_ids, "<u4").astype(np.int32).reshape(-1, self._top_k)
            columns["top_log_probabilities"] = decode_losses(scores.top_log_probabilities, "f16").reshape(-1, self._top_k)
        if len({len(column) for column in columns.values()}) != 1 or not len(columns["losses"]):
            raise _ReplicaFailed(replica.address, "sent scores whose parts are not of the same number of tokens", internal=True)
        return columns

    # One shard

    def _shard_blocks(self, shard: TokenShard, see: bool, first: int, end: int, stop: Stop) -> Iterator[LossBlock]:
        reached = first
        while reached < end:
            # As _retry and _on_one, but what is done in between is yielded.
            progress = _Progress(self._budget, stop)
            while reached < end:
                replica = self._choose(progress)
                try:
                    with _translating(replica, stop):
                        self._agree(replica, stop)
                        for block in self._shard_stream(replica, shard, see, reached, end, stop):
                            reached = block.first_sequence + block.losses.shape[0]
                            progress.step()
                            yield block
                except _ReplicaFailed as failure:
                    progress.failed(replica)
                    if progress.steps > 0:
                        break
                    progress.wait_after(failure, self._names())

    def _shard_stream(self, replica: _Replica, shard: TokenShard, see: bool, first: int, end: int, stop: Stop) -> Iterator[LossBlock]:
        length = shard.length
        open_request = wire.ScoreShardRequest(open=wire.ShardOpen(
            reference=self._reference.fingerprint if self._reference else "", tokenizer_fingerprint=self._tokenizer,
            shard=_identity(shard, see), first_sequence=first, end_sequence=end, format=self._format()))
        send_tokens = threading.Event()
        ended = threading.Event()

        def requests() -> Iterator[wire.ScoreShardRequest]:
            yield open_request
            send_tokens.wait()
            if ended.is_set():
                return
            for token, tokens, layout in shard.blocks(see, _MESSAGE_BYTES):
                if ended.is_set():
                    return
                yield wire.ScoreShardRequest(tokens=wire.TokenBlock(first_token=token, tokens=tokens, layout=layout))

        call = replica.stub.ScoreShard(requests(), metadata=self._metadata)
        next_token = first * length
        begun: Dict[str, np.ndarray] = {}  # of a sequence whose scores come in several messages
        own = (end - first) * length
        replica.own_tokens += own
        try:
            with stop.cancelling(call):
                for response in watched(call, self._stall_timeout):
                    kind = response.WhichOneof("kind")
                    if kind == "send_tokens":
                        send_tokens.set()
                    elif kind == "block":
                        if response.block.first_token != next_token:
                            raise _ReplicaFailed(replica.address, f"sent losses of token {response.block.first_token} where {next_token} was next", internal=True)
                        columns = self._decode(response.block.scores, replica)
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
                            yield LossBlock((next_token - have) // length, **block)
                        if next_token == end * length:
                            return
            raise _ReplicaFailed(replica.address, "ended the stream before the last sequence", internal=True)
        finally:
            replica.own_tokens -= own
            ended.set()
            send_tokens.set()
            call.cancel()


class _Progress:
    """How far some work has got over all its attempts, and whether another attempt is worth it."""

    def __init__(self, budget: float, stop: Stop):
        self.stop = stop
        self._budget = budget
        self._last = time.monotonic()
        self._delay = 0.1
        self._internal = 0
        self.steps = 0
        self.last_failed: Optional[_Replica] = None

    def step(self) -> None:
        self.steps += 1
        self._last = time.monotonic()
        self._delay = 0.1
        self._internal = 0

    def failed(self, replica: _Replica) -> None:
        replica.failed_at = time.monotonic()
        self.last_failed = replica

    def wait_after(self, failure: _ReplicaFailed, names: str) -> None:
        """Waits before the next attempt, or raises Unavailable where it is not worth it."""
        idle = time.monotonic() - self._last
        self._internal += failure.internal
        if idle >= self._budget or self._internal >= _MAX_INTERNAL_FAILURES:
            raise Unavailable(f"no scorer of {names} made progress for {idle:.0f} s; last: {failure}") from failure
        delay = failure.retry_after if failure.retry_after is not None else self._delay * random.uniform(0.5, 1.5)
        self.stop.sleep(min(delay, max(0.0, self._budget - idle)))
        self._delay = min(5.0, self._delay * 2)


class _Exchange:
    """Sequences on their way to scorers and losses on their way back, over as many streams one after another as it takes."""

    def __init__(self, sequences: "Iterator[Tuple[int, np.ndarray, bytes]]", client: ScorerClient):
        self._source = sequences
        self._client = client
        self._unanswered: "Dict[int, Tuple[np.ndarray, bytes]]" = {}
        self._room = threading.Condition()
        self._open_tokens = 0
        self._source_ended = False
        self._source_failure: Optional[BaseException] = None
        self._taking = threading.Lock()
        self._taken: Optional[Tuple[int, np.ndarray, bytes]] = None

    @property
    def done(self) -> bool:
        return self._source_ended and not self._unanswered

    def run(self, replica: _Replica, stop: Stop) -> Iterator[SequenceLosses]:
        client = self._client
        ended = threading.Event()
        failed = threading.Event()

        def message(number: int, tokens: np.ndarray, layout: bytes) -> wire.ScoreRequest:
            return wire.ScoreRequest(sequence=wire.Sequence(id=number, tokens=tokens.astype("<u4", copy=False).tobytes(), layout=layout))

        def requests() -> Iterator[wire.ScoreRequest]:
            assert client._reference is not None
            yield wire.ScoreRequest(open=wire.ScoreOpen(
                reference=client._reference.fingerprint, tokenizer_fingerprint=client._tokenizer, format=client._format(), token_type=wire.TOKEN_TYPE_U32))
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

        call = replica.stub.Score(requests(), metadata=client._metadata)
        partial: Dict[int, List[Dict[str, np.ndarray]]] = {}
        try:
            with stop.cancelling(call):
                for response in call:
                    if response.id not in self._unanswered:
                        raise _ReplicaFailed(replica.address, f"answered sequence {response.id}, which was not asked for", internal=True)
                    parts = partial.setdefault(response.id, [])
                    filled = sum(len(part["losses"]) for part in parts)
                    size = self._unanswered[response.id][0].size
                    columns = client._decode(response.scores, replica)
                    count = len(columns["losses"])
                    if response.first_token != filled or filled + count > size:
                        raise _ReplicaFailed(replica.address, f"sent losses of token {response.first_token} of sequence {response.id} where {filled} was next", internal=True)
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
        if not self.done:
            raise _ReplicaFailed(replica.address, "ended the stream before all sequences were answered", internal=True)


class _translating:
    """Turns what gRPC raises into what the caller can do about it."""

    def __init__(self, replica: _Replica, stop: Stop):
        self._replica = replica
        self._stop = stop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        # ValueError: a call on a channel that was closed.
        if self._stop.is_set and isinstance(error, (grpc.RpcError, grpc.FutureCancelledError, ValueError)):
            self._stop.check()
        if isinstance(error, Silence):
            raise _ReplicaFailed(self._replica.address, str(error)) from error
        if not isinstance(error, grpc.RpcError):
            return
        code, detail, where = error.code(), error.details() or "", f"scorer {self._replica.address}"
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            raise Mismatch(f"{where}: {detail}") from error
        if code == grpc.StatusCode.DATA_LOSS:
            raise CorruptData(f"{where}: {detail}") from error
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise Unauthenticated(f"{where}: {detail}") from error
        if code == grpc.StatusCode.UNIMPLEMENTED:
            raise RhoError(f"{self._replica.address} is not a Rho scorer: {detail}") from error
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.PERMISSION_DENIED):
            raise RhoError(f"{where}: {detail}") from error
        trailers = dict(error.trailing_metadata() or ())
        wait = trailers.get("retry-after", "")
        raise _ReplicaFailed(
            self._replica.address, f"{code.name}: {detail}", float(wait) if wait.isdigit() else None,
            code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)) from error


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


def _identity(shard: TokenShard, documents_see_each_other: bool) -> wire.Shard:
    return wire.Shard(
        sha256=shard.sha256, token_type=wire.TOKEN_TYPE_U16 if shard.tokens.dtype.itemsize == 2 else wire.TOKEN_TYPE_U32,
        sequences=shard.sequences, length=shard.length, layout_sha256=shard.layout_sha256(documents_see_each_other))


def _parse(address: str) -> Tuple[str, bool]:
    is_name = address.startswith("dns:///")
    text = address[len("dns:///"):] if is_name else address
    for scheme in ("http://", "https://"):
        if text.startswith(scheme):
            text = text[len(scheme):].rstrip("/")
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdigit() or "/" in text:
        raise RhoError(f"scorer address {address!r} is not one; expected host:port or dns:///name:port")
    return text, is_name


def _look_up(address: str) -> List[str]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return list(dict.fromkeys(f"[{where[0]}]:{port}" if family == socket.AF_INET6 else f"{where[0]}:{port}" for family, _, _, _, where in found))
