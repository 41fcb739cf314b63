"""Matrix products by rule equal TensorFlow's, and run so on the device runtime."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tflite_models.on_device import DeviceFunction

SIDES = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)

#: Equations of attention and its gradients, of outer products, sums and permutations.
EQUATIONS = (
    "abc,cde->abde",
    "abde,cde->abc",
    "abde,abc->cde",
    "aecd,abcd->acbe",
    "acbe,aecd->abcd",
    "acbe,abcd->aecd",
    "abcd,cde->abe",
    "ab,bc->ac",
    "ab,cb->ac",
    "ab,ac->bc",
    "a,b->ab",
    "a,a->",
    "ab,a->ab",
    "ab->ba",
    "abc->b",
    "abc,ad->dc",
    "...ab,bc->...ac",
    "...ab,...cb->...ac",
    "ab,bc",
)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def ours(op: str, *inputs: np.ndarray, **attributes: object) -> np.ndarray:
    import tensorflow as tf

    from tflite_models.lowering.rules import RULES

    (output,) = RULES[op].apply([tf.constant(value) for value in inputs], attributes)
    return np.asarray(output)


@given(SIDES, SIDES, SIDES, st.booleans(), st.booleans(), SEEDS)
@settings(max_examples=40)
def test_a_product_equals_tensorflows(rows, inner, columns, transpose_a, transpose_b, seed):
    import tensorflow as tf

    a = normal(seed, *((inner, rows) if transpose_a else (rows, inner)))
    b = normal(seed + 1, *((columns, inner) if transpose_b else (inner, columns)))
    flags = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    expected = tf.raw_ops.MatMul(a=a, b=b, **flags)
    np.testing.assert_allclose(ours("MatMul", a, b, **flags), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["BatchMatMulV2", "BatchMatMulV3"])
@pytest.mark.parametrize("batches", [((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), ()),
                                     ((), (3,)), ((2, 1), (3,))])  # fmt: skip
@given(SIDES, SIDES, SIDES, st.booleans(), st.booleans(), SEEDS)
@settings(max_examples=10)
def test_a_batched_product_equals_tensorflows(
    op, batches, rows, inner, columns, adj_x, adj_y, seed
):
    import tensorflow as tf

    x = normal(seed, *batches[0], *((inner, rows) if adj_x else (rows, inner)))
    y = normal(seed + 1, *batches[1], *((columns, inner) if adj_y else (inner, columns)))
    flags = {"adj_x": adj_x, "adj_y": adj_y}
    expected = tf.raw_ops.BatchMatMulV2(x=x, y=y, **flags)
    np.testing.assert_allclose(ours(op, x, y, **flags), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("equation", EQUATIONS)
@given(data=st.data())
@settings(max_examples=15)
def test_an_einsum_equals_tensorflows(equation, data):
    import tensorflow as tf

    size = {letter: data.draw(SIDES) for letter in "abcde"}
    hidden = data.draw(st.lists(SIDES, max_size=2))
    operands = []
    for position, term in enumerate(equation.partition("->")[0].split(",")):
        letters = term.replace("...", "")
        shape = [*(hidden if "..." in term else []), *(size[letter] for letter in letters)]
        operands.append(normal(position, *shape))
    expected = tf.raw_ops.Einsum(inputs=operands, equation=_explicit(equation))
    np.testing.assert_allclose(
        ours("Einsum", *operands, equation=equation), expected, rtol=1e-5, atol=1e-5
    )


def _explicit(equation: str) -> str:
    return equation if "->" in equation else f"{equation}->ac"


def test_an_einsum_that_takes_a_diagonal_is_refused():
    with pytest.raises(ValueError, match="diagonal"):
        ours("Einsum", normal(0, 3, 3), equation="aa->a")


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("weights", [(7, 5), (700, 500)])
def test_a_product_with_the_batch_as_rows_runs_at_any_batch_size(transpose_b, weights):
    from tflite_models.lowering.rules import RULES

    inner, columns = weights
    b = normal(1, *((columns, inner) if transpose_b else (inner, columns)))
    function = DeviceFunction(
        lambda a, b: RULES["MatMul"].apply([a, b], {"transpose_b": transpose_b}),
        [normal(0, 2, inner), b],
    )
    for size in (1, 2, 13):
        a = normal(size, size, inner)
        (product,) = function(a, b)
        np.testing.assert_allclose(product, a @ (b.T if transpose_b else b), rtol=1e-4, atol=1e-4)


def test_a_product_that_sums_over_the_batch_runs_at_any_batch_size():
    from tflite_models.lowering.rules import RULES

    function = DeviceFunction(
        lambda a, b: RULES["MatMul"].apply([a, b], {"transpose_a": True}),
        [normal(0, 2, 7), normal(1, 2, 5)],
        dynamic=(0, 1),
    )
    for size in (1, 2, 13):
        a, b = normal(size, size, 7), normal(size + 1, size, 5)
        np.testing.assert_allclose(function(a, b)[0], a.T @ b, rtol=1e-5, atol=1e-5)


def test_a_product_with_a_large_transposed_matrix_is_made_in_parts():
    from tflite_models.lowering.rules import RULES

    a, b = normal(0, 700, 5003), normal(1, 700, 3)
    function = DeviceFunction(
        lambda a, b: RULES["MatMul"].apply([a, b], {"transpose_a": True}), [a, b], dynamic=()
    )
    expected = a.astype(np.float64).T @ b
    np.testing.assert_allclose(function(a, b)[0], expected, rtol=1e-4, atol=1e-4)
    assert function.graph.count(b"BatchMatMul") > 1


@pytest.mark.parametrize(
    ("equation", "second"),
    [("abc,cde->abde", (4, 2, 3)), ("abde,cde->abc", (5, 2, 4)), ("abde,abc->cde", None),
     ("aecd,abcd->acbe", None), ("acbe,aecd->abcd", None)],
)  # fmt: skip
def test_attentions_products_run_at_any_batch_size(equation, second):
    from tflite_models.lowering.rules import RULES

    size = dict(zip("bcde", (3, 4, 2, 4), strict=True))
    if second is not None:
        size.update(zip(equation.split("->")[0].split(",")[1], second, strict=True))

    def operands(batch: int) -> list[np.ndarray]:
        terms = equation.split("->")[0].split(",")
        shapes = [[batch if a == "a" else size[a] for a in term] for term in terms]
        return [normal(position, *shape) for position, shape in enumerate(shapes)]

    function = DeviceFunction(
        lambda x, y: RULES["Einsum"].apply([x, y], {"equation": equation}),
        operands(2),
        dynamic=(0,) if second is not None else (0, 1),
    )
    for batch in (1, 2, 9):
        values = operands(batch)
        np.testing.assert_allclose(
            function(*values)[0], np.einsum(equation, *values), rtol=1e-5, atol=1e-5
        )
