"""What goes wrong with phones, drawn from a seed: interrupted and vanishing devices.

A fleet uses it to show a server the drop-out of a real population. Each
session draws its fate when it gets its assignment.
"""

from dataclasses import dataclass
from enum import Enum

from android_stub.randomness import Uniform, between
from android_stub.session_messages import Action, Compute, UploadChunk


class Vanishing(Enum):
    """Where a vanishing device falls silent."""

    #: Before the computation: the server sees a device that downloaded and
    #: was not heard of again.
    AFTER_DOWNLOAD = "after download"
    #: After half of the update has arrived.
    MID_UPLOAD = "mid upload"


@dataclass(frozen=True, kw_only=True)
class MisfortuneRates:
    """How often a session goes wrong.

    Raises:
        ValueError: a rate outside [0, 1], or both together above 1.
    """

    #: Probability that someone picks the device up during the computation.
    interrupt: float = 0.0
    #: Probability that the device falls silent.
    vanish: float = 0.0
    #: Mean seconds of silence, ± 50 %.
    vanish_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.interrupt, self.vanish) < 0 or not self.interrupt + self.vanish <= 1:
            raise ValueError(
                "the interrupt and vanish rates must be from 0 to 1 and at most 1 together, not "
                f"{self.interrupt} and {self.vanish}"
            )


class Misfortune:
    """One session's fate.

    Attributes:
        interrupted_at: Part of the computation (0 to 1) after which the gate
            closes; None: it does not.
        vanishing: None: the device stays in contact.
        silence_s: Seconds that a vanishing device is silent.
        happened: "interrupted" or "vanished" once it did, "" before.
    """

    __slots__ = ("happened", "interrupted_at", "silence_s", "vanishing")

    def __init__(self, *, rates: MisfortuneRates, draws: Uniform) -> None:
        self.happened = ""
        chance = draws.random()
        place = draws.random()
        self.interrupted_at: float | None = None
        self.vanishing: Vanishing | None = None
        self.silence_s = between(draws, 0.5 * rates.vanish_s, 1.5 * rates.vanish_s)
        if chance < rates.interrupt:
            self.interrupted_at = place
        elif chance < rates.interrupt + rates.vanish:
            self.vanishing = Vanishing.AFTER_DOWNLOAD if place < 0.5 else Vanishing.MID_UPLOAD

    def interrupts(self, done: int, total: int) -> bool:
        """Whether the gate closes before this batch."""
        if self.interrupted_at is None or done < self.interrupted_at * (total - 1):
            return False
        self.happened = "interrupted"
        return True

    def chunk_bytes(self, update_bytes: int) -> int | None:
        """The chunk size that makes a mid-upload silence possible; None: no matter."""
        if self.vanishing is Vanishing.MID_UPLOAD:
            return max(1, -(-update_bytes // 2))
        return None

    def silence_before(self, action: Action) -> float:
        """Seconds of silence that begin now instead of the action; at most once a session."""
        match self.vanishing, action:
            case Vanishing.AFTER_DOWNLOAD, Compute():
                pass
            case Vanishing.MID_UPLOAD, UploadChunk(offset=offset) if offset > 0:
                pass
            case _:
                return 0.0
        self.vanishing = None
        self.happened = "vanished"
        return self.silence_s
