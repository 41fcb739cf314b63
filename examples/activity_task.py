"""Activity recognition from a phone's accelerometer.

Build its plan with

    nightshift plan build examples/activity_task.py -o activity.plan

A device holds windows of its owner's movement, labelled e.g. by what a workout app was
told. People differ in what they do and in how they do it.
"""

from device_plan.cohort import CohortPolicy
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import activity
from tflite_models.data import activity as movement


def process_fn(model_fn):
    """Weighted federated averaging with momentum on the server."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.1),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0, momentum=0.5),
    )


def proxy_fn():
    """Windows of 30 made-up people, of whom six are held out."""
    data = movement.synthetic(people=30)
    return ProxyData(clients=data.clients, held_out=data.held_out)


task = FederatedTask(
    name="activity",
    population="fitness/activity",
    model_fn=activity.model_fn,
    process_fn=process_fn,
    batch_size=10,
    epochs=2,
    examples=ExampleSelector(collection="accelerometer", min_examples=10, max_examples=400),
    cohort=CohortPolicy(goal_count=50),
    evaluation=EvaluationPolicy(every_rounds=10, cohort=CohortPolicy(goal_count=30)),
    rounds=300,
    sample_fn=movement.sample,
    proxy_fn=proxy_fn,
    # Six activities: chance is 0.17.
    predicates=(Predicate(metric="accuracy", at_least=0.6, after_rounds=10, clients_per_round=10),),
)
