"""The objects of one population, apart from those of others."""

from collections.abc import Iterator

from server.storage.blobs import BlobNotFound, BlobStore, prefixed


def population_prefix(population: str) -> str:
    """Where a population's objects are.

    Segments of a key may not begin with a dot; those of a population's name may.
    """
    segments = (
        "=" + segment if segment.startswith((".", "=")) or not segment else segment
        for segment in population.split("/")
    )
    return "/".join(("populations", *segments))


class PopulationBlobs(BlobStore):
    """A store under a prefix of another one.

    What is not there is looked for without the prefix, where earlier versions kept
    the objects of all populations; nothing is written there any more.

    Args:
        store: The store of all populations.
        population: Whose objects these are.
    """

    def __init__(self, store: BlobStore, population: str) -> None:
        self._all = store
        self._own = prefixed(store, population_prefix(population))

    def get(self, key: str) -> bytes:
        try:
            return self._own.get(key)
        except BlobNotFound:
            return self._all.get(key)

    def put_new(self, key: str, data: bytes) -> bool:
        return self._own.put_new(key, data)

    def size(self, key: str) -> int:
        try:
            return self._own.size(key)
        except BlobNotFound:
            return self._all.size(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys under the prefix only."""
        return self._own.list(prefix)

    def delete(self, key: str) -> None:
        self._own.delete(key)
