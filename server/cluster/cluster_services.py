"""What coordinators and masters work with, in whichever process they are."""

from __future__ import annotations

import functools
import random
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.actors.services import Services
from server.cluster.model_update import RemoteUpdater
from server.cluster.ray_system import RaySystem
from server.cluster.selector_directory import RayDirectory
from server.configuration import ServerConfiguration
from server.open_plans import OpenPlans
from server.storage.blobs import BlobStore, open_blobs
from server.storage.database import open_database
from server.storage.population_blobs import PopulationBlobs
from server.storage.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ClusterServices(Services):
    """Services that travel: connections are made anew in the process that they come to.

    Attributes:
        updater: Of which more can be asked than of others.
        system: Of this process.
        configuration: Where database and blobs are. It may hold the database's
            password, so Ray must be closed to strangers.
        store: The blobs of all populations.
    """

    updater: RemoteUpdater
    system: RaySystem
    configuration: ServerConfiguration
    store: BlobStore

    def __reduce__(self) -> tuple[Any, ...]:
        return services_of, (self.system, self.configuration)


@functools.lru_cache(maxsize=1)
def services_of(system: RaySystem, configuration: ServerConfiguration) -> ClusterServices:
    """The services of this process; one set for all of its actors.

    Raises:
        UnusableDatabase: the database cannot be opened.
    """
    store = open_blobs(configuration.blobs)
    blobs = partial(PopulationBlobs, store)
    return ClusterServices(
        selectors=RayDirectory(system),
        registry=Registry(engine=open_database(configuration.database_url)),
        blobs=blobs,
        # A coordinator needs each once; the model update keeps its own.
        plans=OpenPlans(blobs, most=0),
        updater=RemoteUpdater(system.find),
        rng=random.Random(secrets.randbits(64)),
        system=system,
        configuration=configuration,
        store=store,
    )
