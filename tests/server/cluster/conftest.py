"""One Ray for all tests of a test process that need no more than that."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cluster.ray_node import configure, disconnect, environment, make_token, start_head

# Ray's sockets do not bear the length of pytest's paths.
_DIRECTORY = Path(tempfile.mkdtemp(prefix="nightshift-test-", dir="/tmp"))
atexit.register(shutil.rmtree, _DIRECTORY, ignore_errors=True)

_TOKEN = make_token(_DIRECTORY / "token")

# Ray reads these when it is imported, as the modules of tests do.
configure(environment(_TOKEN))


@pytest.fixture(scope="session")
def ray_node() -> Iterator[str]:
    """The namespace of actors in a Ray of this process."""
    start_head(
        temporary=_DIRECTORY / "ray",
        token_file=_TOKEN,
        namespace="tests",
        object_store_bytes=100 << 20,
    )
    yield "tests"
    disconnect()
