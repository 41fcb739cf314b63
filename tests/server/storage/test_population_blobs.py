"""Each population has a place of its own in the blob store."""

from pathlib import Path

import pytest

from server.storage.blobs import BlobNotFound, LocalBlobs, get_content, put_content
from server.storage.population_blobs import PopulationBlobs


def test_what_one_population_stores_no_other_finds(tmp_path: Path) -> None:
    store = LocalBlobs(root=tmp_path)
    names = ["keyboard", "keyboard/next-word", "keyboard/.hidden", "keyboard/=2e", "a//b"]
    digests = {name: put_content(PopulationBlobs(store, name), name.encode()) for name in names}
    for name in names:
        own = PopulationBlobs(store, name)
        assert get_content(own, digests[name]) == name.encode()
        for other in set(names) - {name}:
            with pytest.raises(BlobNotFound):
                get_content(own, digests[other])


def test_what_an_earlier_version_stored_for_all_is_still_found(tmp_path: Path) -> None:
    store = LocalBlobs(root=tmp_path)
    digest = put_content(store, b"a plan")
    own = PopulationBlobs(store, "keyboard/next-word")
    assert get_content(own, digest) == b"a plan"
    assert list(own.list()) == []


def test_an_object_is_written_and_deleted_in_its_population_only(tmp_path: Path) -> None:
    store = LocalBlobs(root=tmp_path)
    own = PopulationBlobs(store, "digits/demo")
    assert own.put_new("probe", b"1")
    assert not own.put_new("probe", b"2")
    assert (own.size("probe"), list(own.list())) == (1, ["probe"])
    assert list(store.list()) == ["populations/digits/demo/probe"]
    own.delete("probe")
    with pytest.raises(BlobNotFound):
        own.size("probe")
