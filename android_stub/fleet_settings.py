"""What a fleet is made of, and what it tells of itself."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from android_stub.example_files import ExampleFiles
from android_stub.misfortune import MisfortuneRates
from android_stub.night import REAL_NIGHT_S
from device_plan.signing import load_public_key


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """Virtual devices, where they go, and what befalls them.

    Raises:
        ValueError: a value is out of range, or the data is missing.
    """

    #: The server's address.
    server: str
    population: str
    #: Virtual devices in all.
    devices: int
    #: See `example_files`.
    data: Path
    #: Where each device keeps its SQLite file, and each process its log.
    state_dir: Path
    #: The collection of the example store into which the data goes: the plan's
    #: example selector must name it.
    collection: str = "examples"
    #: The devices are divided among so many processes.
    processes: int = 2
    #: Threads of a process: so many devices make a request or compute at once.
    threads: int = 4
    #: Devices' keys, nights, delays and misfortunes follow from it.
    seed: int = 0
    #: Seconds of one accelerated night; None: the gate is always open.
    night_s: float | None = None
    #: Part of a day that is night.
    night_fraction: float = 1 / 3
    interrupt_rate: float = 0.0
    vanish_rate: float = 0.0
    #: Mean seconds for which a vanished device is silent.
    vanish_s: float = 30.0
    #: Divides the delays taken when the server gave no window; None: the nights'
    #: acceleration, or 1 without nights.
    time_scale: float | None = None
    #: Files of pinned public keys; without any, plans need no signature.
    plan_keys: tuple[Path, ...] = ()
    #: Seconds over which the devices' first check-ins are spread.
    arrival_s: float = 2.0
    #: Seconds between two progress messages of a process.
    progress_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("devices", "processes", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("night_s", "time_scale", "progress_s", "vanish_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if not 0 < self.night_fraction <= 1:
            raise ValueError(f"night_fraction must be in (0, 1], not {self.night_fraction}")
        if not self.arrival_s >= 0:
            raise ValueError(f"arrival_s must not be negative, not {self.arrival_s}")
        self.misfortune()
        self.trusted()

    def trusted(self) -> tuple[Ed25519PublicKey, ...]:
        """Raises InvalidKey (a ValueError)."""
        return tuple(load_public_key(path) for path in self.plan_keys)

    def misfortune(self) -> MisfortuneRates | None:
        rates = MisfortuneRates(
            interrupt=self.interrupt_rate, vanish=self.vanish_rate, vanish_s=self.vanish_s
        )
        return rates if rates.interrupt or rates.vanish else None

    def acceleration(self) -> float:
        """What divides the default delays."""
        if self.time_scale is not None:
            return self.time_scale
        return 1.0 if self.night_s is None else max(1.0, REAL_NIGHT_S / self.night_s)

    def examples(self) -> ExampleFiles:
        """Raises WrongExampleFile (a ValueError)."""
        return ExampleFiles(self.data, devices=self.devices)

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "FleetSettings":
        values = json.loads(text)
        values |= {name: Path(values[name]) for name in ("data", "state_dir")}
        values["plan_keys"] = tuple(map(Path, values["plan_keys"]))
        return cls(**values)


@dataclass(kw_only=True)
class FleetProgress:
    """Figures of a fleet since its start; the fields are the keys of its JSON lines."""

    #: Virtual devices, and how many of them are now doing what.
    devices: int = 0
    pacing: int = 0
    asleep: int = 0
    in_session: int = 0
    #: Finished sessions by shape.
    session_shapes: dict[str, int] = field(default_factory=Counter)
    #: Updates in a round's sum, by computation: {"training": …, "evaluation": …}.
    accepted: dict[str, int] = field(default_factory=Counter)
    #: Sessions that were made to go wrong: {"interrupted": …, "vanished": …}.
    misfortunes: dict[str, int] = field(default_factory=Counter)
    #: The last word in unsuccessful sessions, e.g. {"ROUND_FULL": …}.
    notes: dict[str, int] = field(default_factory=Counter)
    #: Bytes of bodies on the wire.
    bytes_up: int = 0
    bytes_down: int = 0
    #: Steps that raised an unexpected error; see the process's log.
    faults: int = 0
    #: Of all processes.
    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    #: Processes that are alive.
    processes: int = 0
    #: Seconds since the start.
    seconds: float = 0.0

    @property
    def sessions(self) -> int:
        return sum(self.session_shapes.values())

    def to_json(self) -> str:
        """One line."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FleetProgress":
        """Raises ValueError if it is not such a line."""
        values = json.loads(text)
        known = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping) or not known >= set(values):
            raise ValueError("not a progress line")
        typed: dict[str, Any] = {
            name: Counter(value) if isinstance(value, dict) else value
            for name, value in values.items()
        }
        return cls(**typed)

    @classmethod
    def total(cls, parts: Iterable["FleetProgress"]) -> "FleetProgress":
        """The sum of several processes' figures (of `seconds`, the greatest)."""
        total: dict[str, Any] = {item.name: getattr(cls(), item.name) for item in fields(cls)}
        for part in parts:
            for item in fields(cls):
                value = getattr(part, item.name)
                if item.name == "seconds":
                    total[item.name] = max(total[item.name], value)
                else:
                    total[item.name] = total[item.name] + value
        return cls(**total)
