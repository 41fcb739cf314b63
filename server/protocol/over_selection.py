"""How many devices to select, so that a round reaches its goal: from observed drop-out.

A selected device is *dropped* if its update never comes: it aborts, vanishes, or
is cut off as a straggler (Bonawitz et al. 2019, section 9, report 6 to 10 %).
Devices that the round no longer needed, because its goal was reached, say
nothing of drop-out and are left out of the estimate.

With ``d`` the probability of dropping, ``n`` selected devices bring
``Binomial(n, 1 - d)`` updates. Selected is the smallest ``n`` with::

    P(Binomial(n, 1 - d) >= goal) >= 0.95

which over-selects more, relatively, for small cohorts than for large ones, as it
must. The probability ``d`` is the mean of a Beta distribution: the author's
``over_selection = o`` counts as one round's evidence of ``d = 1 - 1 / o`` (``PRIOR``
devices), and each observed round adds its devices, after older evidence has lost
a share (``FORGETTING``), so that the estimate follows the time of day.

The result keeps within the policy's bounds on over-selection.
"""

import math
from collections.abc import Mapping
from typing import Any

from device_plan.cohort import CohortPolicy

#: Probability with which a round's devices bring at least the goal.
CONFIDENCE = 0.95

#: Devices that the author's own over-selection counts for.
PRIOR = 20.0

#: What older rounds' evidence is worth after each new one.
FORGETTING = 0.8


class OverSelection:
    """The drop-out of one task's rounds, and the cohort that makes up for it."""

    def __init__(self) -> None:
        self._dropped = 0.0
        self._completed = 0.0

    def observe(self, statistics: Mapping[str, Any]) -> None:
        """A round has ended with these statistics (`Round.statistics`).

        Rounds that were abandoned before their devices had work say nothing.
        """
        dropped, accepted = statistics.get("dropped", 0), statistics.get("accepted", 0)
        if dropped + accepted <= 0:
            return
        self._dropped = FORGETTING * self._dropped + dropped
        self._completed = FORGETTING * self._completed + accepted

    def drop_out(self, policy: CohortPolicy) -> float:
        """The estimated probability that a selected device brings no update."""
        prior = PRIOR * (1 - 1 / policy.over_selection)
        return (self._dropped + prior) / (self._dropped + self._completed + PRIOR)

    def target(self, policy: CohortPolicy) -> int:
        """Devices to select for a round."""
        if not policy.adaptive_over_selection or not (self._dropped or self._completed):
            return policy.selection_target
        goal = policy.goal_count
        least = policy.selected_at(policy.over_selection_min)
        most = policy.selected_at(max(policy.over_selection_max, policy.over_selection))
        return max(least, _smallest(goal, self.drop_out(policy), most))


def _smallest(goal: int, drop_out: float, most: int) -> int:
    """The smallest n with P(Binomial(n, 1 - drop_out) >= goal) >= CONFIDENCE, or ``most``.

    The number of devices until the goal is negative binomial; its distribution
    is summed up from n = goal, term by term.
    """
    keep = 1.0 - drop_out
    if keep >= 1.0:
        return goal
    # Logarithms: keep ** goal underflows for cohorts of thousands.
    n, log_term = goal, goal * math.log(keep)
    total = math.exp(log_term)
    while total < CONFIDENCE and n < most:
        # P(n-th device brings the goal-th update) grows by this factor.
        log_term += math.log(n / (n - goal + 1)) + math.log(drop_out)
        n += 1
        total += math.exp(log_term)
    return n
