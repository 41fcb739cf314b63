"""Bounded label values: a metric keeps a time series for each, for ever."""

from server.telemetry.check_ins import OTHERS


class Labels:
    """The first `most` names are themselves; later ones are "others".

    Args:
        most: How many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """The label for a name."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHERS
        self._known.add(name)
        return name
