"""How messages are packed for another process: references become addresses.

A reference to an actor of this process is only good here. In a parcel it is the
gate of its process, which is a Ray actor, and its name there; who unpacks the
parcel makes it a reference again: the actor itself if it lives in that process,
else a `RemoteRef`. Likewise the actor system of one process becomes that of the other.

Arrays travel beside the pickle, so that Ray keeps them in shared memory, and are
copied out of it when they are unpacked, because receivers may change them.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ray import cloudpickle
from ray.actor import ActorHandle

from server.actors.cells import ActorDied, Ref

#: Bytes from which on a buffer travels beside the pickle.
APART_BYTES = 64 << 10


@dataclass(frozen=True)
class Parcel:
    """A packed value. Only who knows addresses can unpack it.

    Attributes:
        data: The pickle.
        buffers: The large arrays of the value.
        gates: The processes of the actors that the value refers to.
    """

    data: bytes
    buffers: tuple[np.ndarray, ...]
    gates: tuple[ActorHandle, ...]

    @property
    def size(self) -> int:
        """Bytes, without what is around them."""
        return len(self.data) + sum(buffer.nbytes for buffer in self.buffers)


class Addresses(Protocol):
    """Knows which process an actor lives in, and which actors live here."""

    def gate_of(self, ref: Ref) -> ActorHandle:
        """The gate of the actor's process."""

    def ref_at(self, gate: ActorHandle, name: str) -> Ref:
        """A reference to the actor of that name behind a gate."""


@dataclass(frozen=True)
class Failed:
    """An exception that is handed over, not raised here."""

    error: BaseException


def pack(value: Any, addresses: Addresses) -> Parcel:
    """Packs a value.

    Raises:
        Exception: whatever pickling the value raises.
    """
    file = io.BytesIO()
    buffers: list[np.ndarray] = []
    pickler = _Pickler(file, addresses, buffers)
    pickler.dump(value)
    return Parcel(file.getvalue(), tuple(buffers), tuple(pickler.gates))


def pack_failure(error: BaseException, addresses: Addresses) -> Parcel:
    """Packs an exception; one that cannot be pickled and restored becomes a RuntimeError."""
    try:
        parcel = pack(Failed(error), addresses)
        unpack(parcel, addresses)
    except Exception:
        return pack(Failed(RuntimeError(f"{type(error).__name__}: {error}")), addresses)
    return parcel


def unpack(parcel: Parcel, addresses: Addresses) -> Any:
    """The value, with references that are good in this process."""
    return _Unpickler(parcel, addresses).load()


def value_of(parcel: Parcel, addresses: Addresses) -> Any:
    """The value that was packed, or raises the exception that was."""
    value = unpack(parcel, addresses)
    if isinstance(value, Failed):
        raise value.error
    return value


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined]
    def __init__(self, file: io.BytesIO, addresses: Addresses, buffers: list[np.ndarray]) -> None:
        self.gates: list[ActorHandle] = []
        self._addresses = addresses

        def travels_inside(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < APART_BYTES:
                return True
            buffers.append(np.frombuffer(raw, np.uint8))
            return False

        super().__init__(file, protocol=5, buffer_callback=travels_inside)

    def persistent_id(self, thing: Any) -> Any:
        if isinstance(thing, Ref):
            self.gates.append(self._addresses.gate_of(thing))
            return ("actor", len(self.gates) - 1, thing.name)
        if isinstance(thing, ActorDied):
            # Its only argument is not what its constructor takes.
            return ("died", 0, thing.name)
        if thing is self._addresses:
            return ("here", 0, "")
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, parcel: Parcel, addresses: Addresses) -> None:
        copies = [np.array(buffer) for buffer in parcel.buffers]
        super().__init__(io.BytesIO(parcel.data), buffers=copies)
        self._gates = parcel.gates
        self._addresses = addresses

    def persistent_load(self, pid: Any) -> Any:
        kind, number, name = pid
        if kind == "died":
            return ActorDied(name)
        if kind == "here":
            return self._addresses
        return self._addresses.ref_at(self._gates[number], name)
