"""The kinds of session in which device graphs and TFF are compared."""

from device_plan.matrix.case import Computation

#: By name: what is computed, whether the last batch
#: is smaller than the others, and how many epochs there are.
SESSIONS: dict[str, tuple[Computation, bool, int]] = {
    "one batch": ("training", False, 1),
    "a partial last batch": ("training", True, 1),
    "two epochs": ("training", True, 2),
    "evaluation": ("evaluation", True, 1),
}
