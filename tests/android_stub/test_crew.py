import threading
import time

from android_stub.crew import Crew


class Member:
    def __init__(self, delays):
        self.delays = list(delays)
        self.calls: list[float] = []
        self.busy = False
        self.done = threading.Event()

    def step(self, now: float) -> float:
        assert not self.busy
        self.busy = True
        self.calls.append(now)
        time.sleep(0.001)
        self.busy = False
        if len(self.calls) > len(self.delays):
            self.done.set()
            return 1000.0
        return self.delays[len(self.calls) - 1]


def test_members_are_stepped_when_due_and_never_twice_at_once():
    crew = Crew(threads=3, clock=time.monotonic)
    members = [Member([0.0, 0.02, 0.0, 0.05]) for _ in range(20)]
    start = time.monotonic()
    for member in members:
        crew.add(member, due=start + 0.01)
    crew.start()
    for member in members:
        assert member.done.wait(5)
        assert member.calls[0] >= start + 0.01
        assert member.calls[2] - member.calls[1] >= 0.02
        assert member.calls[4] - member.calls[3] >= 0.05
    assert crew.stop(timeout_s=2.0)
    assert crew.faults == 0


def test_a_member_added_earlier_than_the_awaited_one_goes_first():
    crew = Crew(threads=2, clock=time.monotonic)
    late, early = Member([]), Member([])
    crew.start()
    crew.add(late, due=time.monotonic() + 600)
    crew.add(early, due=time.monotonic())
    assert early.done.wait(5)
    assert late.calls == []
    assert crew.stop(timeout_s=2.0)


def test_a_step_that_fails_is_counted_and_the_crew_goes_on():
    class Broken:
        def step(self, now: float) -> float:  # noqa: ARG002
            raise RuntimeError("on purpose")

    crew = Crew(threads=1, clock=time.monotonic)
    member = Member([])
    crew.add(Broken(), due=0.0)
    crew.add(member, due=0.1)
    crew.start()
    assert member.done.wait(5)
    assert crew.faults == 1
    assert crew.stop(timeout_s=2.0)
