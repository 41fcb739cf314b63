"""Numbers that stand in for TensorFlow's random ones, against the published generator."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.tflite_models.test_random_numbers import SEEDS, as183


@given(SEEDS, st.integers(0, 500), st.integers(1, 200))
def test_numbers_can_begin_anywhere_in_the_published_sequence(seed, skip, size):
    from device_plan.compiler.replay import wichmann_hill

    expected = as183(seed, skip + size)[skip:]
    np.testing.assert_allclose(wichmann_hill(seed, skip, size), expected, atol=1e-12)
