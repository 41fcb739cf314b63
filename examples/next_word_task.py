"""Next-word prediction in a keyboard: the CIFG LSTM of Hard et al. 2018.

Build its plan with

    nightshift plan build examples/next_word_task.py -o next_word.plan

A device holds sentences that its owner typed. Phones with at least 50 of them take
part, and use the 400 newest. The server's Adam (Reddi et al. 2021) stands for the
paper's Nesterov momentum.
"""

from device_plan.cohort import CohortPolicy
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import next_word
from tflite_models.data import next_word as sentences


def process_fn(model_fn):
    """Weighted federated averaging with Adam on the server."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.5),
        server_optimizer_fn=tff.learning.optimizers.build_adam(learning_rate=0.01),
    )


def proxy_fn():
    """Messages of 40 made-up people, of whom eight are held out."""
    data, _ = sentences.synthetic(people=40)
    return ProxyData(clients=data.clients, held_out=data.held_out)


task = FederatedTask(
    name="next word",
    population="keyboard/next-word",
    model_fn=next_word.model_fn,
    process_fn=process_fn,
    batch_size=16,
    examples=ExampleSelector(collection="sentences", min_examples=50, max_examples=400),
    cohort=CohortPolicy(goal_count=200),
    evaluation=EvaluationPolicy(every_rounds=20, cohort=CohortPolicy(goal_count=100)),
    rounds=3000,
    sample_fn=sentences.sample,
    proxy_fn=proxy_fn,
    # An untrained model has the loss ln 10000 = 9.2.
    predicates=(Predicate(metric="loss", at_most=6.0, after_rounds=8, clients_per_round=8),),
)
