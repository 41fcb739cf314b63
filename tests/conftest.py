"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# The same examples on every machine and in every run, however slow it is;
# `make soak` draws new ones instead.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "exploring",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("repeatable")
