"""The table of operations that are written with others.

A rule is a function whose parameters are the operation's inputs, in order,
followed by keyword-only attributes it cares about; it returns the outputs.
Rules use TensorFlow operations that the TFLite converter maps to builtins.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tflite_models.lowering.values import Value

RuleFunction: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """How one operation is written in builtins."""

    op: str
    function: RuleFunction
    #: Names of the attributes that the function takes.
    attributes: tuple[str, ...]

    def apply(self, inputs: Sequence[Value], attributes: Mapping[str, Any]) -> list[Value]:
        chosen = {name: attributes[name] for name in self.attributes if name in attributes}
        outputs = self.function(*inputs, **chosen)
        return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


RULES: dict[str, Rule] = {}

#: Operations that cannot be lowered, and what an author can do instead.
REFUSED: dict[str, str] = {}


def rule(*ops: str) -> Callable[[RuleFunction], RuleFunction]:
    """Registers a function as the rule of operations."""

    def register(function: RuleFunction) -> RuleFunction:
        keyword_only = tuple(
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        )
        for op in ops:
            if op in RULES:
                raise ValueError(f"{op} has two rules")
            RULES[op] = Rule(op, function, keyword_only)
        return function

    return register


def refuse(*ops: str, advice: str) -> None:
    """Registers operations as refused by name."""
    REFUSED.update(dict.fromkeys(ops, advice))
