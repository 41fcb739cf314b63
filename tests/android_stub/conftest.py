from collections.abc import Iterator

import pytest

from device_plan.archive import DevicePart
from device_plan.checkpoint import encode
from tests.android_stub import linear_plan
from tests.android_stub.fake_server import FakeServer


@pytest.fixture(scope="session")
def linear() -> DevicePart:
    return DevicePart.from_bytes(linear_plan.PLAN.read_bytes())


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        fake.script.plan = linear_plan.PLAN.read_bytes()
        fake.script.checkpoint = encode(linear_plan.checkpoint())
        yield fake
