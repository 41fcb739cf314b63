"""Handwritten digits on phones: the task that `nightshift demo` trains.

Build its plan with

    nightshift plan build examples/digits_task.py -o digits.plan

Each device holds a few digits of its own, far from an even mix of all ten.
Windows are those of an accelerated night, in which hours pass in seconds.
"""

from device_plan.cohort import CohortPolicy
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import digits


def process_fn(model_fn):
    """Weighted federated averaging (McMahan et al. 2017), with momentum on the server."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.5),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0, momentum=0.7),
    )


task = FederatedTask(
    name="digits",
    population="digits/demo",
    model_fn=digits.model_fn,
    process_fn=process_fn,
    batch_size=5,
    epochs=5,
    examples=ExampleSelector(collection="digits", min_examples=5, max_examples=200),
    cohort=CohortPolicy(
        goal_count=24,
        over_selection=1.3,
        selection_window_s=0.6,
        selection_timeout_s=15.0,
        reporting_window_s=10.0,
    ),
    evaluation=EvaluationPolicy(
        every_rounds=4,
        cohort=CohortPolicy(
            goal_count=12,
            over_selection=1.25,
            minimum_fraction=0.4,
            selection_window_s=1.0,
            selection_timeout_s=3.0,
            reporting_window_s=3.0,
        ),
    ),
    rounds=20,
)
