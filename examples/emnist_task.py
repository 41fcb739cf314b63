"""Handwritten characters: the convolutional network of McMahan et al. 2017.

Build its plan with

    nightshift plan build examples/emnist_task.py -o emnist.plan

A device holds what one person wrote. Five local epochs with batches of ten are those
of the paper's table 2.
"""

from device_plan.cohort import CohortPolicy
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import emnist
from tflite_models.data import emnist as writers


def process_fn(model_fn):
    """Weighted federated averaging with plain SGD, on the server as well."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.05),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0),
    )


def proxy_fn():
    """Digits in the hands of 50 synthetic writers, of whom ten are held out."""
    data = writers.synthetic(writers=50)
    return ProxyData(clients=data.clients, held_out=data.held_out)


task = FederatedTask(
    name="emnist",
    population="keyboard/handwriting",
    model_fn=emnist.model_fn,
    process_fn=process_fn,
    batch_size=10,
    epochs=5,
    examples=ExampleSelector(collection="handwriting", min_examples=10, max_examples=200),
    cohort=CohortPolicy(goal_count=100),
    evaluation=EvaluationPolicy(every_rounds=10, cohort=CohortPolicy(goal_count=50)),
    rounds=500,
    sample_fn=writers.sample,
    proxy_fn=proxy_fn,
    # Ten digits: chance is 0.1.
    predicates=(Predicate(metric="accuracy", at_least=0.5, after_rounds=6, clients_per_round=10),),
)
