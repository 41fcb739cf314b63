"""The table of operations that the walk treats itself, instead of building them again."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tflite_models.lowering.node import Node
from tflite_models.lowering.values import Value

if TYPE_CHECKING:
    from tflite_models.lowering.graph_walk import GraphWalk

#: Gives a node's outputs, or None to leave the node to the later stages.
Handler: TypeAlias = Callable[["GraphWalk", Node, list[Value]], list[Value] | None]

HANDLERS: dict[str, Handler] = {}


def handles(*ops: str) -> Callable[[Handler], Handler]:
    """Registers a function as the handler of operations."""

    def register(handler: Handler) -> Handler:
        for op in ops:
            if op in HANDLERS:
                raise ValueError(f"{op} has two handlers")
            HANDLERS[op] = handler
        return handler

    return register
