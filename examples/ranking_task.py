"""Ranking of search results on the phone, with a small deep network.

Build its plan with

    nightshift plan build examples/ranking_task.py -o ranking.plan

A device holds the results that its owner was shown and whether each was tapped, as in
Bonawitz et al. 2019, section 8. `ranking_logistic_task.py` is the linear model for it.
"""

from device_plan.cohort import CohortPolicy
from device_plan.predicates import Predicate
from device_plan.proxy_data import ProxyData
from device_plan.task import EvaluationPolicy, ExampleSelector, FederatedTask
from tflite_models import ranking
from tflite_models.data import ranking as taps


def process_fn(model_fn):
    """Weighted federated averaging with Adam on the server (Reddi et al. 2021)."""
    import tensorflow_federated as tff

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(learning_rate=0.1),
        server_optimizer_fn=tff.learning.optimizers.build_adam(learning_rate=0.01),
    )


def proxy_fn():
    """What 60 made-up people tapped, of whom twelve are held out."""
    data = taps.synthetic(people=60)
    return ProxyData(clients=data.clients, held_out=data.held_out)


task = FederatedTask(
    name="ranking",
    population="settings/search-ranking",
    model_fn=ranking.deep_model_fn,
    process_fn=process_fn,
    batch_size=20,
    examples=ExampleSelector(collection="search_results", min_examples=20, max_examples=500),
    cohort=CohortPolicy(goal_count=100),
    evaluation=EvaluationPolicy(every_rounds=10, cohort=CohortPolicy(goal_count=100)),
    rounds=500,
    sample_fn=taps.sample,
    proxy_fn=proxy_fn,
    # To know only how often people tap gives 0.66.
    predicates=(Predicate(metric="loss", at_most=0.61, after_rounds=10, clients_per_round=20),),
)
