"""An actor that is started again when it dies, behind a reference that stays."""

from collections.abc import Callable, Mapping
from typing import Any

from server.actors.runtime import Ref


class Supervised:
    """Whoever holds it reaches the actor that lives now.

    Args:
        start: Spawns the actor; called once at first, and for each `restart`.
    """

    def __init__(self, start: Callable[[], Ref]) -> None:
        self._start = start
        self.ref = start()

    def ask(self, method: str, *args: Any) -> Any:
        """As `Ref.ask`; raises ActorDied until it has been started again."""
        return self.ref.ask(method, *args)

    def tell(self, method: str, *args: Any) -> None:
        """As `Ref.tell`."""
        self.ref.tell(method, *args)

    def restart(self) -> Ref:
        """A new actor in the place of the one that died."""
        self.ref = self._start()
        return self.ref


class OneSelector:
    """The directory of a tier with a single selector."""

    def __init__(self, selector_id: str, selector: Supervised) -> None:
        self._id = selector_id
        self._selector = selector

    def members(self) -> Mapping[str, Ref]:
        """The selector that lives now."""
        return {self._id: self._selector.ref}
