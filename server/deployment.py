"""Deploying plans: from an author's archive to tasks in the registry."""

import logging
import secrets
from collections.abc import Callable

from device_plan import signing
from device_plan.archive import MalformedPlan, PlanArchive
from server.configuration import ServerConfiguration
from server.schedule import Schedule
from server.storage.blobs import (
    BlobDamaged,
    BlobNotFound,
    BlobStore,
    get_content,
    put_content,
)
from server.storage.errors import AlreadyExists, UnknownPopulation
from server.storage.plans import PlanVariant
from server.storage.registry import Registry

_log = logging.getLogger(__name__)


class Deployment:
    """Makes tasks of plans.

    Args:
        configuration: The operator's settings.
        registry: Where tasks and populations are.
        blobs: The store of a population.

    Raises:
        InvalidKey: one of the configured plan keys cannot be read.
    """

    def __init__(
        self,
        *,
        configuration: ServerConfiguration,
        registry: Registry,
        blobs: Callable[[str], BlobStore],
    ) -> None:
        self._plan_keys = [signing.load_public_key(path) for path in configuration.plan_keys]
        self._holdout_fraction = configuration.holdout_fraction
        self._registry = registry
        self._blobs = blobs

    def create_tasks(
        self,
        plan: PlanArchive,
        *,
        rounds: int | None = None,
        goal_count: int | None = None,
        only_population: str | None = None,
    ) -> list[str]:
        """Registers a plan, its training task and, if it has one, its evaluation task.

        Args:
            plan: From the author.
            rounds: Rounds to commit, instead of what the author wished.
            goal_count: Updates that complete a training round, likewise.
            only_population: The plan may be for this population only.

        Returns:
            The ids of the tasks, the training task's first.

        Raises:
            MalformedPlan, ValueError: the plan cannot be run; nothing was created.
            NotTrusted: it is not signed by one of the configured keys; likewise.
            PermissionError: it is for another population; likewise.
        """
        if self._plan_keys:
            signing.verify_archive(plan, self._plan_keys)
        schedule = Schedule.of(plan, rounds=rounds, goal_count=goal_count)
        population = schedule.population
        if only_population not in (None, population):
            raise PermissionError(
                f"the plan is for the population {population!r}, the token for {only_population!r}"
            )
        self._ensure_population(population)
        blobs = self._blobs(population)
        put_content(blobs, plan.data)
        self._registry.plans.add(
            digest=plan.digest,
            variants=self._store_variants(plan, blobs),
            manifest={
                "name": plan.manifest.name,
                "graph_bytes": len(plan.graph),
                "checkpoint_bytes": len(plan.initial_checkpoint),
                "min_runtime_version": plan.manifest.min_runtime_version,
            },
            schedule=plan.schedule,
        )
        training = self._registry.tasks.create(
            population=population,
            name=schedule.name,
            computation="training",
            plan_digest=plan.digest,
            cohort=schedule.cohort.to_json(),
            weight=schedule.cohort.weight,
            rounds=schedule.rounds,
            initial_state_sha256=put_content(blobs, plan.initial_state),
            initial_checkpoint_sha256=put_content(blobs, plan.initial_checkpoint),
        )
        created = [training]
        if schedule.evaluation is not None:
            created.append(
                self._registry.tasks.create(
                    population=population,
                    name=f"{schedule.name}-evaluation",
                    computation="evaluation",
                    plan_digest=plan.digest,
                    cohort=schedule.evaluation.cohort.to_json(),
                    weight=schedule.evaluation.cohort.weight,
                    evaluates=training,
                    every_rounds=schedule.evaluation.every_rounds,
                )
            )
        return created

    def signature_warning(self, plan: PlanArchive) -> str | None:
        """What an operator should know of a plan's signature that this server does not verify."""
        if self._plan_keys:
            return None
        advice = "start the server with --plan-key to run only plans signed by keys you know"
        if not plan.signature:
            return f"the plan is not signed: {advice}"
        signer = signing.signed_by(plan.signature)
        return f"the plan's signature by key {signer} was not verified: {advice}"

    def describe_old_plans(self, blobs: BlobStore) -> None:
        """Lists the variants of plans that an earlier version deployed.

        Args:
            blobs: The store of all populations, where that version kept them.
        """
        for digest in self._registry.plans.undescribed():
            try:
                plan = PlanArchive(get_content(blobs, digest))
            except (BlobNotFound, BlobDamaged, MalformedPlan):
                # Its tasks' rounds fail on it too, and say so.
                _log.exception("plan %s cannot be read", digest)
                continue
            self._registry.plans.describe(digest, self._store_variants(plan, blobs))

    def _store_variants(self, plan: PlanArchive, blobs: BlobStore) -> list[PlanVariant]:
        variants = []
        for part in plan.variants:
            data = part.to_bytes()
            variants.append(
                PlanVariant(
                    name=part.variant,
                    device_part_digest=put_content(blobs, data),
                    size=len(data),
                    runtimes=tuple(runtime.name for runtime in part.manifest.runtimes),
                )
            )
        return variants

    def _ensure_population(self, name: str) -> None:
        try:
            self._registry.populations.get(name)
        except UnknownPopulation:
            try:
                self._registry.populations.create(
                    name=name,
                    holdout_fraction=self._holdout_fraction,
                    holdout_salt=secrets.token_bytes(16),
                )
            except AlreadyExists:
                # Another process was faster.
                return
