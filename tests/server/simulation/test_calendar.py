"""The calendar queue against a sorted list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.simulation.calendar import NEVER, Calendar

STEP_MS, STEPS = 10, 7


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=30),
    st.lists(st.integers(1, 300), min_size=1, max_size=20),
)
def test_every_device_is_taken_at_its_step_and_comes_back_when_told(first, delays) -> None:
    calendar = Calendar(np.array(first, np.int32), step_ms=STEP_MS, steps=STEPS)
    expected = {device: at // STEP_MS for device, at in enumerate(first)}
    turn = 0
    for begin in range(0, 1000, calendar.page_ms):
        calendar.turn_to(begin)
        for step in range(STEPS):
            number = begin // STEP_MS + step
            devices = calendar.take(step)
            due = {device for device, at in expected.items() if at == number}
            assert sorted(devices.tolist()) == sorted(due)
            for device in devices.tolist():
                delay = delays[turn % len(delays)]
                turn += 1
                at = number * STEP_MS + delay
                calendar.schedule(np.array([device], np.int32), np.array([at], np.int32), step)
                # A device that would be due in the same step comes in the next one.
                expected[device] = max(at // STEP_MS, number + 1)


def test_a_device_that_waits_is_not_due() -> None:
    calendar = Calendar(np.array([5, NEVER], np.int32), step_ms=STEP_MS, steps=STEPS)
    calendar.turn_to(0)
    assert calendar.take(0).tolist() == [0]
    calendar.due[0] = NEVER
    calendar.turn_to(calendar.page_ms)
    assert all(not len(calendar.take(step)) for step in range(STEPS))
