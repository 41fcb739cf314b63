"""What a selector must know of a population, as the registry has it."""

from collections.abc import Sequence

from device_plan.wire_pb2 import EVALUATION, TRAINING, Computation
from server.actors.runtime import Ref
from server.assignment import Variants
from server.configuration import ServerConfiguration
from server.desk import PopulationSettings
from server.protocol.pace_steering import PacePolicy
from server.storage.populations import Population
from server.storage.registry import Registry
from server.storage.tasks import OpenTask


def pace_policy(configuration: ServerConfiguration) -> PacePolicy:
    """The operator's bounds on when devices come back."""
    return PacePolicy(
        min_delay_s=configuration.min_retry_s,
        max_delay_s=configuration.max_retry_s,
        rendezvous_period_s=configuration.rendezvous_s,
        permanent_delay_s=configuration.unsupported_retry_s,
    )


class ServedPopulations:
    """Tells a selector what the registry says of its populations, once it has changed.

    Args:
        registry: Asked by each `tell`; one question if nothing has changed.
        configuration: The operator's settings.
    """

    def __init__(self, registry: Registry, configuration: ServerConfiguration) -> None:
        self._registry = registry
        self._configuration = configuration
        self._told: dict[str, tuple[Ref, Population, Sequence[OpenTask]]] = {}

    @property
    def names(self) -> Sequence[str]:
        """The populations that a selector was told of."""
        return tuple(self._told)

    def tell(self, selector: Ref) -> None:
        """Tells it of populations that have changed, or that it was not told of.

        Raises:
            ActorDied, AskTimeout: the selector does not answer.
            DatabaseUnavailable: the registry does not.
        """
        for population, tasks in self._registry.tasks.open_of_populations():
            news = (selector, population, tasks)
            if self._told.get(population.name) != news:
                selector.ask("serve", self._settings(population, tasks))
                self._told[population.name] = news

    def _settings(self, population: Population, tasks: Sequence[OpenTask]) -> PopulationSettings:
        offers: dict[Computation, list[Variants]] = {TRAINING: [], EVALUATION: []}
        for task in tasks:
            plan = self._registry.plans.get(task.plan_digest)
            offers[TRAINING if task.computation == "training" else EVALUATION].append(
                tuple((variant.name, variant.runtimes) for variant in plan.variants)
            )
        return PopulationSettings(
            name=population.name,
            holdout_fraction=population.holdout_fraction,
            holdout_salt=population.holdout_salt,
            pace=pace_policy(self._configuration),
            offers=offers,
            resting=not any(task.status == "active" for task in tasks),
            max_sessions=population.max_sessions,
            max_upload_bytes=population.max_upload_bytes,
        )
