"""Small models drawn at random learn on the device as TFF's graph does on TensorFlow."""

import pytest

from benchmarks.random_models import examine

#: A build is seconds of work, and minutes where the machine has other work.
pytestmark = pytest.mark.timeout(600)

#: `python -m benchmarks random-models N` draws more of them.
SEED, COUNT = 0, 12


@pytest.mark.parametrize("number", range(COUNT))
def test_a_random_model_learns_on_the_device_as_in_tff(number: int) -> None:
    outcome = examine(SEED, number)
    assert outcome.status == "equal", f"{outcome.cause}\n{outcome.steps}\n{outcome.replay}"
