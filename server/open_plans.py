"""Plans that are read from the blob store when they are needed, and kept while they are in use."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from device_plan.archive import PlanArchive
from server.storage.blobs import BlobStore, get_content

#: Plans kept open, unless somebody wants fewer.
MAX_PLANS = 16


class OpenPlans:
    """Shared by all of a process who need plans' archives. Thread-safe.

    Args:
        blobs: The store of a population.
        most: How many are kept; the one used longest ago goes first.
    """

    def __init__(self, blobs: Callable[[str], BlobStore], *, most: int = MAX_PLANS) -> None:
        self._blobs = blobs
        self._most = most
        self._plans: OrderedDict[str, PlanArchive] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, population: str, digest: str) -> PlanArchive:
        """The plan with that digest.

        Raises:
            BlobNotFound, BlobDamaged, MalformedPlan: it cannot be read.
        """
        with self._lock:
            plan = self._plans.get(digest)
            if plan is not None:
                self._plans.move_to_end(digest)
                return plan
        plan = PlanArchive(get_content(self._blobs(population), digest))
        with self._lock:
            self._plans[digest] = plan
            if len(self._plans) > self._most:
                self._plans.popitem(last=False)
        return plan
