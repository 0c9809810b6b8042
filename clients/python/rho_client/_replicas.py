"""The scorers of a client's addresses: connections to them, the choice among them, and what their failures mean."""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import Dict, List, Optional, Sequence, Tuple

import grpc

from ._proto import scoring_pb2 as wire
from ._proto import scoring_pb2_grpc
from ._streams import Silence, Stop
from .errors import CorruptData, Mismatch, RhoError, Unauthenticated

_LOOKUP_SECONDS = 30.0
_AVOID_SECONDS = 3.0

Metadata = List[Tuple[str, str]]


class ReplicaFailed(Exception):
    """A scorer failed in a way that another one, or the same one later, may not."""

    def __init__(self, address: str, reason: str, retry_after: Optional[float] = None, internal: bool = False):
        super().__init__(f"{address}: {reason}")
        self.retry_after = retry_after
        self.internal = internal


class Replica:
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

    def broken(self, what: str) -> ReplicaFailed:
        """The failure of a scorer that does not keep to the protocol."""
        return ReplicaFailed(self.address, what, internal=True)


class Replicas:
    """All scorers of the addresses, looked up again at intervals."""

    def __init__(self, addresses: Sequence[str], credentials: Optional[grpc.ChannelCredentials], metadata: Metadata, stall_timeout: float):
        self._addresses = [_parse(address) for address in addresses]
        if not self._addresses:
            raise RhoError("scorer client: no address is given; expected such as localhost:5001")
        self._credentials = credentials
        self._metadata = metadata
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._replicas: Dict[str, Replica] = {}
        self._left: List[Replica] = []
        self._looked_up_at = -1e9

    @property
    def names(self) -> str:
        """The addresses as configured, for messages."""
        return ", ".join(address for address, _ in self._addresses)

    def close(self) -> None:
        for replica in [*self._replicas.values(), *self._left]:
            replica.channel.close()

    def choose(self, last_failed: Optional[Replica]) -> Replica:
        """Of the scorers that work the one with the fewest queued tokens, by chance among equals; the last that failed comes last."""
        replicas = self.all()
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
        return min(replicas, key=lambda replica: (replica is last_failed, replica.failed_lately, load.get(replica, 0), random.random()))

    def all(self) -> List[Replica]:
        with self._lock:
            named = any(is_name for _, is_name in self._addresses)
            if self._replicas and (not named or time.monotonic() - self._looked_up_at < _LOOKUP_SECONDS):
                return list(self._replicas.values())
            found: Dict[str, Replica] = {}
            try:
                for address, is_name in self._addresses:
                    for target in _look_up(address) if is_name else [address]:
                        found[target] = self._replicas.get(target) or Replica(target, self._connect(target, address))
            except OSError as error:
                if not self._replicas:
                    raise ReplicaFailed(address, f"cannot be looked up: {error}") from error
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


class translating:
    """Turns what gRPC raises into what the caller can do about it."""

    def __init__(self, replica: Replica, stop: Stop):
        self._replica = replica
        self._stop = stop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        # ValueError: a call on a channel that was closed.
        if self._stop.is_set and isinstance(error, (grpc.RpcError, grpc.FutureCancelledError, ValueError)):
            self._stop.check()
        if isinstance(error, Silence):
            raise ReplicaFailed(self._replica.address, str(error)) from error
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
        raise ReplicaFailed(
            self._replica.address, f"{code.name}: {detail}", float(wait) if wait.isdigit() else None,
            code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)) from error


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
