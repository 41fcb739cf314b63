"""Bytes of updates received and of plans and checkpoints sent, as plain integers."""

from collections.abc import Iterator

from server.telemetry.check_ins import MAX_POPULATIONS, OTHERS


class TrafficCounts:
    """Counts since the process began. Exact among threads for the reason `CheckInCounts` is."""

    def __init__(self) -> None:
        self._up: dict[str, list[int]] = {}
        self._down = [0]

    def up(self, population: str, size: int) -> None:
        """A chunk of an update of a population that is served here has arrived."""
        cell = self._up.get(population)
        if cell is None:
            known = population if len(self._up) < MAX_POPULATIONS else OTHERS
            cell = self._up.setdefault(known, [0])
        cell[0] += size

    def down(self, size: int) -> None:
        """A plan or checkpoint was answered; bodies that break off count in full."""
        self._down[0] += size

    def items_up(self) -> Iterator[tuple[str, int]]:
        """Population and bytes."""
        for population, cell in list(self._up.items()):
            yield population, cell[0]

    @property
    def total_down(self) -> int:
        return self._down[0]
