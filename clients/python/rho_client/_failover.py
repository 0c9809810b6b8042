"""The one place that decides on which scorer something is done, when, how often, and when to give up."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Tuple, TypeVar

import numpy as np

from ._proto import scoring_pb2 as wire
from ._replicas import Metadata, Replica, ReplicaFailed, Replicas, translating
from ._scores import ENCODINGS
from ._streams import Stop
from .errors import Mismatch, Unavailable

_MAX_INTERNAL_FAILURES = 4
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0

T = TypeVar("T")


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


class Agreement:
    """What scorers have to serve before anything of theirs is used: what is wanted, and what the first of them described."""

    def __init__(self, reference: str, tokenizer: str, metadata: Metadata, timeout: float):
        self.reference: Optional[Reference] = None
        self.tokenizer = tokenizer
        self._wanted = reference
        self._metadata = metadata
        self._timeout = timeout
        self._probe: Optional[np.ndarray] = None
        self._lock = threading.Lock()

    def reach(self, replica: Replica, stop: Stop) -> None:
        """On first use of a scorer. Mismatch where it computes other losses than the scorers before it."""
        if replica.agreed:
            return
        wanted = self.reference.fingerprint if self.reference else self._wanted
        request = wire.DescribeRequest(reference=wanted, tokenizer_fingerprint=self.tokenizer)
        with stop.cancelling(replica.stub.Describe.future(request, timeout=self._timeout, metadata=self._metadata)) as call:
            answer = call.result()
        probe = np.frombuffer(answer.probe_losses, "<f4")
        with self._lock:
            if self.reference is None:
                names = {number: name for name, number in ENCODINGS.items()}
                self.reference = Reference(
                    answer.reference, answer.tokenizer_fingerprint, answer.vocabulary_size, answer.context_length, answer.description,
                    tuple(names[encoding] for encoding in answer.encodings if encoding in names), answer.max_top_k)
                self._probe = probe
        assert self._probe is not None
        if probe.shape != self._probe.shape or not np.allclose(probe, self._probe, rtol=0.02, atol=0.05, equal_nan=True):
            raise Mismatch(
                f"scorer {replica.address} claims reference {answer.reference} but computes other losses than the scorers before it "
                "(probe batch differs): it or they are broken; nothing of it was used")
        replica.agreed = True


class Failover:
    """Attempts at one scorer after another until one gets through."""

    def __init__(self, replicas: Replicas, agreement: Agreement):
        self._replicas = replicas
        self._agreement = agreement

    def call(self, budget: float, stop: Stop, work: "Callable[[Replica], T]") -> T:
        """The result of one call."""
        return next(self.run(budget, stop, lambda replica: iter((work(replica),))))

    def run(self, budget: float, stop: Stop, work: "Callable[[Replica], Iterator[T]]") -> "Iterator[T]":
        """What `work` yields. It is begun anew where its scorer fails, and goes on where it got to.

        After a failure the next attempt follows at once where the last one got somewhere, otherwise after a growing time or the one
        that the scorer asked for. Raises Unavailable when there was no progress for `budget` seconds.
        """
        progress = _Progress(budget)
        while True:
            replica: Optional[Replica] = None
            try:
                stop.check()
                replica = self._replicas.choose(progress.last_failed)
                with translating(replica, stop):
                    self._agreement.reach(replica, stop)
                    for item in work(replica):
                        progress.step()
                        yield item
                return
            except ReplicaFailed as failure:
                if replica is not None:
                    replica.failed_at = time.monotonic()
                    progress.last_failed = replica
                delay = progress.delay_after(failure)
                if delay is None:
                    raise Unavailable(f"no scorer of {self._replicas.names} made progress for {progress.idle:.0f} s; last: {failure}") from failure
                stop.sleep(delay)


class _Progress:
    """How far some work has got over all its attempts, and whether another attempt is worth it."""

    def __init__(self, budget: float):
        self._budget = budget
        self._last = time.monotonic()
        self._stepped = False
        self._failures = 0
        self._internal = 0
        self.last_failed: Optional[Replica] = None

    @property
    def idle(self) -> float:
        return time.monotonic() - self._last

    def step(self) -> None:
        self._last = time.monotonic()
        self._stepped = True
        self._failures = self._internal = 0

    def delay_after(self, failure: ReplicaFailed) -> Optional[float]:
        """Seconds until the next attempt; None where it is not worth it."""
        self._failures += 1
        self._internal += failure.internal
        if self.idle >= self._budget or self._internal >= _MAX_INTERNAL_FAILURES:
            return None
        if failure.retry_after is not None:
            delay = failure.retry_after
        elif self._stepped and self._failures == 1:
            delay = 0.0
        else:
            delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._failures - 1, 10) * random.uniform(0.5, 1.5))
        return min(delay, max(0.0, self._budget - self.idle))
