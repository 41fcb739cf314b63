"""A client computation, split at its data set, gives what TensorFlow gives for the whole."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

BATCHES = [np.array([[3.0, 5.0], [7.0, -1.0]], np.float32), np.array([[1.0, 2.0]], np.float32)]


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


class Computation:
    """A graph with a scalar parameter `scale`, a data set of [?, 2] batches, and one result."""

    def __init__(self, tf, body: Callable) -> None:
        self.tf = tf
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.scale = tf.compat.v1.placeholder(tf.float32, [], name="scale")
            self.data = tf.compat.v1.placeholder(tf.variant, [], name="data")
            spec = tf.TensorSpec([None, 2], tf.float32)
            dataset = tf.data.experimental.from_variant(self.data, spec)
            self.result, self.initialize = body(self.scale, dataset)

    def expected(self, scale: float) -> np.ndarray:
        """By TensorFlow, on the whole data set."""
        tf = self.tf
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            rows = tf.data.Dataset.from_tensor_slices(np.concatenate(BATCHES)).batch(2)
            feeds = {
                self.data.name: tf.data.experimental.to_variant(rows),
                self.scale.name: tf.constant(scale),
            }
            wanted = [self.result.name] + ([self.initialize.name] if self.initialize else [])
            result, *initialize = tf.import_graph_def(
                self.graph.as_graph_def(), feeds, wanted, name=""
            )
            session.run(initialize)
            return session.run(result)

    def lowered(self):
        from tflite_models.lowering import ClientWork

        return ClientWork(
            graph=self.graph.as_graph_def(),
            initialize=self.initialize.name if self.initialize else "",
            dataset=self.data.name,
            parameters=[self.scale.name],
            results=[self.result.name],
            batch=[self.tf.TensorSpec([None, 2], self.tf.float32)],
        )

    def split(self, scale: float) -> np.ndarray:
        """By begin, batch and finish."""
        work, function = self.lowered(), partial(self.tf.function, autograph=False)
        parameters = [self.tf.constant(scale)]
        state = function(lambda: work.begin(parameters))()
        for batch in BATCHES:
            state = function(lambda s, x: work.batch(parameters, s, [x]))(state, batch)
        (result,) = function(lambda s: work.finish(parameters, s))(state)
        return result.numpy()


def test_a_loops_own_state_is_carried(tf):
    def body(scale, dataset):
        total, count = dataset.reduce(
            (0.0, tf.constant(0, tf.int64)),
            lambda s, x: (s[0] + tf.reduce_sum(x) * scale, s[1] + 1),
        )
        return total / tf.cast(count, tf.float32), None

    computation = Computation(tf, body)
    assert computation.split(3.0) == pytest.approx(3.0 * 17 / 2)
    np.testing.assert_allclose(computation.split(3.0), computation.expected(3.0), rtol=1e-6)


def test_variables_that_batches_change_are_state_and_others_are_not(tf):
    def body(scale, dataset):
        weights = tf.compat.v1.get_variable("w", initializer=[1.0, 1.0], use_resource=True)
        rate = tf.compat.v1.get_variable("rate", initializer=0.5, use_resource=True)

        def step(count, x):
            weights.assign_sub(rate * scale * tf.reduce_mean(x, 0))
            return count + 1

        initialize = tf.compat.v1.global_variables_initializer()
        with tf.control_dependencies([dataset.reduce(0, step)]):
            return weights.read_value(), initialize

    computation = Computation(tf, body)
    np.testing.assert_allclose(computation.split(2.0), computation.expected(2.0), rtol=1e-6)
    assert [spec.shape.as_list() for spec in computation.lowered().state_specs] == [[], [2]]


def test_a_merge_selects_the_value_of_the_branch_taken(tf):
    def body(scale, dataset):
        total = dataset.reduce(0.0, lambda s, x: s + tf.reduce_sum(x))
        predicate = total * scale > 0
        if_false, if_true = tf.raw_ops.Switch(data=total, pred=predicate)
        merged, _ = tf.raw_ops.Merge(inputs=[if_true * 10.0, if_false - 1.0])
        return merged, None

    computation = Computation(tf, body)
    assert computation.split(1.0) == pytest.approx(170.0)
    assert computation.split(-1.0) == pytest.approx(16.0)
    for scale in (1.0, -1.0):
        assert computation.split(scale) == pytest.approx(computation.expected(scale))


def test_an_assignment_in_a_branch_not_taken_has_no_effect(tf):
    def body(scale, dataset):
        variable = tf.compat.v1.get_variable("v", initializer=1.0, use_resource=True)
        total = dataset.reduce(0.0, lambda s, x: s + tf.reduce_sum(x))
        predicate = scale > 0
        _, if_true = tf.raw_ops.Switch(data=total, pred=predicate)
        assign = tf.raw_ops.AssignVariableOp(resource=variable.handle, value=if_true)
        false_side, _ = tf.raw_ops.Switch(data=scale, pred=predicate)
        with tf.control_dependencies([assign]):
            true_side = tf.identity(if_true)
        joined, _ = tf.raw_ops.Merge(inputs=[tf.identity(false_side), true_side])
        initialize = tf.compat.v1.global_variables_initializer()
        with tf.control_dependencies([joined]):
            return variable.read_value(), initialize

    computation = Computation(tf, body)
    assert computation.split(1.0) == pytest.approx(17.0)
    assert computation.split(-1.0) == pytest.approx(1.0)
    for scale in (1.0, -1.0):
        assert computation.split(scale) == pytest.approx(computation.expected(scale))


def test_a_conditional_and_a_loop_of_fixed_length_are_unfolded(tf):
    def body(scale, dataset):
        @tf.function
        def step(total, x):
            value = tf.reduce_sum(x)
            for _ in tf.range(3):
                value = value * scale
            return total + tf.cond(value > 0, lambda: value, lambda: -value)

        return dataset.reduce(0.0, step), None

    computation = Computation(tf, body)
    assert computation.split(-1.0) == pytest.approx(17.0)
    assert computation.split(-1.0) == pytest.approx(computation.expected(-1.0))


def drawing(tf):
    """A loop that sums random numbers."""

    def body(scale, dataset):
        def step(total, _):
            with tf.name_scope("network"), tf.name_scope("noise"):
                return total + tf.reduce_sum(tf.random.uniform([2], name="draw")) * scale

        return dataset.reduce(0.0, step), None

    return Computation(tf, body).lowered()


def test_random_numbers_follow_the_seed_and_differ_between_batches(tf):
    from tflite_models.lowering.random_numbers import BLOCK, DRAWS, GENERATORS

    work, one = drawing(tf), [tf.constant(1.0)]
    assert work.seeded
    function = partial(tf.function, autograph=False)
    seed = (11, 222, 3333)
    state = function(lambda: work.begin(one, tf.constant(seed, tf.int32)))()
    totals = []
    for batch in BATCHES:
        state = function(lambda s, x: work.batch(one, s, [x]))(state, batch)
        totals.append(float(state[0]))

    def drawn(skipped):
        """The first two numbers of AS 183 after some."""
        return sum(
            sum(
                s * pow(a, skipped + n, m) % m / m
                for s, (a, m) in zip(seed, GENERATORS, strict=True)
            )
            % 1
            for n in range(2)
        )

    expected = np.cumsum([drawn(0), drawn(DRAWS * BLOCK)])
    np.testing.assert_allclose(totals, expected, rtol=1e-5)


def test_a_seed_is_asked_for_where_random_numbers_are_drawn(tf):
    with pytest.raises(ValueError, match="a seed is given"):
        drawing(tf).begin([tf.constant(1.0)])


def test_random_numbers_outside_a_batch_are_refused_by_name_with_the_layer(tf):
    from tflite_models.lowering import UnsupportedOperation

    def body(scale, dataset):
        total = dataset.reduce(0.0, lambda s, x: s + tf.reduce_sum(x))
        with tf.name_scope("network"), tf.name_scope("noise"):
            return total * tf.random.uniform([]) * scale, None

    with pytest.raises(UnsupportedOperation, match="'noise' uses RandomUniform"):
        Computation(tf, body).split(1.0)


def test_a_computation_without_a_data_set_is_refused(tf):
    from tflite_models.lowering import LoweringError

    with pytest.raises(LoweringError, match="does not read its examples"):
        Computation(tf, lambda scale, _: (scale + 1.0, None)).split(1.0)


def test_a_data_set_that_is_mapped_first_is_refused(tf):
    from tflite_models.lowering import LoweringError

    def body(scale, dataset):
        rows = dataset.map(lambda x: x * scale)
        return tf.add(rows.reduce(0.0, lambda s, x: s + tf.reduce_sum(x)), 0.0), None

    with pytest.raises(LoweringError, match=r"MapDataset|data set"):
        Computation(tf, body).split(1.0)


def test_a_data_set_that_is_read_twice_is_refused(tf):
    from tflite_models.lowering import LoweringError

    def body(scale, dataset):
        first = dataset.reduce(0.0, lambda s, x: s + tf.reduce_sum(x))
        return dataset.reduce(first, lambda s, x: s + scale * tf.reduce_max(x)), None

    with pytest.raises(LoweringError, match="reads its examples twice"):
        Computation(tf, body).split(1.0)
