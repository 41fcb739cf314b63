"""Next-character prediction: the LSTM of McMahan et al. 2017 for Shakespeare's plays.

Build its plan with

    nightshift plan build examples/shakespeare_task.py -o shakespeare.plan

A device holds the speeches of one character. Batches of ten are the paper's; its
learning rate of 1 or more is halved, with which the loss falls.
"""

from device_plan.cohort import CohortPolicy
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import shakespeare
from tflite_models.data import shakespeare as plays


def process_fn(model_fn):
    """Weighted federated averaging with plain SGD, on the server as well."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.5),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=1.0),
    )


def proxy_fn():
    """Famous speeches of 25 characters, of whom five are held out."""
    data = plays.speeches()
    return ProxyData(clients=data.clients, held_out=data.held_out)


task = FederatedTask(
    name="shakespeare",
    population="theatre/next-character",
    model_fn=shakespeare.model_fn,
    process_fn=process_fn,
    batch_size=10,
    examples=ExampleSelector(collection="speeches", min_examples=2, max_examples=500),
    cohort=CohortPolicy(goal_count=10),
    evaluation=EvaluationPolicy(every_rounds=10, cohort=CohortPolicy(goal_count=5)),
    rounds=1000,
    sample_fn=plays.sample,
    proxy_fn=proxy_fn,
    # An untrained model has the loss ln 90 = 4.5.
    predicates=(Predicate(metric="loss", at_most=3.6, after_rounds=6, clients_per_round=10),),
)
