"""What a selector must know of a population, as the registry has it."""

from device_plan.wire_pb2 import EVALUATION, TRAINING, Computation
from server.assignment import Variants
from server.configuration import ServerConfiguration
from server.desk import PopulationSettings
from server.protocol.pace_steering import PacePolicy
from server.storage.populations import Population
from server.storage.registry import Registry


def pace_policy(configuration: ServerConfiguration) -> PacePolicy:
    """The operator's bounds on when devices come back."""
    return PacePolicy(
        min_delay_s=configuration.min_retry_s,
        max_delay_s=configuration.max_retry_s,
        rendezvous_period_s=configuration.rendezvous_s,
        permanent_delay_s=configuration.unsupported_retry_s,
    )


def settings_of(
    population: Population, registry: Registry, configuration: ServerConfiguration
) -> PopulationSettings:
    """The population's settings: its quotas, and what its tasks offer."""
    offers: dict[Computation, list[Variants]] = {TRAINING: [], EVALUATION: []}
    tasks = registry.tasks.list(population.name)
    for task in tasks:
        if task.status in ("active", "paused"):
            plan = registry.plans.get(task.plan_digest)
            offers[TRAINING if task.computation == "training" else EVALUATION].append(
                tuple((variant.name, variant.runtimes) for variant in plan.variants)
            )
    return PopulationSettings(
        name=population.name,
        holdout_fraction=population.holdout_fraction,
        holdout_salt=population.holdout_salt,
        pace=pace_policy(configuration),
        offers=offers,
        resting=not any(task.status == "active" for task in tasks),
        max_sessions=population.max_sessions,
        max_upload_bytes=population.max_upload_bytes,
    )
