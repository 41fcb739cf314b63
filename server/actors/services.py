"""What coordinators and master aggregators work with."""

from dataclasses import dataclass

from server.actors.runtime import Ref
from server.downloads import Downloads
from server.model_update.updater import ModelUpdater
from server.storage.blobs import BlobStore
from server.storage.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Services:
    """Attributes:
    selector: Where the devices are.
    registry: Where rounds and models are committed.
    blobs: Where states and checkpoints go.
    downloads: From where devices fetch plan and checkpoint.
    updater: Computes model updates.
    """

    selector: Ref
    registry: Registry
    blobs: BlobStore
    downloads: Downloads
    updater: ModelUpdater
