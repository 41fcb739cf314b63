"""How a state machine without a clock asks for time to pass."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tick:
    """Event: the machine is looked at because time has passed. Never harmful."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Effect: send a `Tick` at this time, in the seconds the machine is driven by.

    Several may be outstanding; none replaces another, and a tick too many is
    harmless. A tick that comes too early is answered with a new `WakeAt`.
    """

    at: float
