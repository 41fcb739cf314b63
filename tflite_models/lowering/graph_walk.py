"""Walks a GraphDef as an abstract interpreter and builds the same computation anew.

The walk executes, in dependency order, the nodes that the wanted outputs need
and those with effects on variables. Each node is treated by the first of:
its handler (calls, control flow, variables, shapes), folding when all inputs
are known now, its rule (an equivalent in TFLite builtins), or emission as it is.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorflow.core.framework import function_pb2, graph_pb2
from tensorflow.python.framework import op_def_registry

# Importing `shapes`, `tensor_lists` and `variables` enters their handlers in the table.
from tflite_models.lowering import (
    control_flow,
    dataset,
    shapes,  # noqa: F401
    tensor_lists,  # noqa: F401
    variables,  # noqa: F401
)
from tflite_models.lowering.control_flow import Conditions
from tflite_models.lowering.emit import emit, fold
from tflite_models.lowering.environment import Environment
from tflite_models.lowering.errors import LoweringError, UnsupportedOperation
from tflite_models.lowering.handlers import HANDLERS
from tflite_models.lowering.node import Node, node_name
from tflite_models.lowering.random_numbers import Draws
from tflite_models.lowering.rules import REFUSED, RULES, Rule
from tflite_models.lowering.values import Value, is_handle

#: Prefixes of operations that change a variable.
_EFFECTS = ("Assign", "ResourceScatter", "ResourceApply")


class GraphWalk:
    """One execution of a graph, into whatever graph is being traced at the moment.

    Args:
        graph: The whole computation, with its function library.
        reduction: What to do at ReduceDataset (see `dataset`); None if there is none.
        draws: Where random operations get their numbers; None refuses them.
        rules: What replaces operations, by name.

    Attributes:
        environment: The variables' values at this point of the walk.
        origins: For each operation built, the names of the source nodes that
            caused it, so that the converter's complaints can name a layer.
    """

    def __init__(
        self,
        graph: graph_pb2.GraphDef,
        *,
        reduction: dataset.ReductionPolicy | None = None,
        draws: Draws | None = None,
        rules: Mapping[str, Rule] = RULES,
    ) -> None:
        self._rules = rules
        self.draws = draws or Draws((), 0)
        self._nodes = {definition.name: Node(definition) for definition in graph.node}
        self._functions = {f.signature.name: f for f in graph.library.function}
        self._bodies: dict[str, dict[str, Node]] = {}
        self.reduction = reduction
        self.environment = Environment()
        self.origins: dict[str, list[str]] = defaultdict(list)

    def run(
        self, feeds: Mapping[str, Value], fetches: Sequence[str], *, first: Sequence[str] = ()
    ) -> list[Value]:
        """The values of `fetches`.

        Args:
            feeds: Values of placeholders, by node name.
            fetches: Tensor references in the graph.
            first: Nodes that initialise variables. An initial value is computed when
                it is read, for most are replaced by the feeds before.
        """
        scope = _Scope(self._nodes, {name: [value] for name, value in feeds.items()})
        for name in first:
            self._initialize(scope, name)
        self._execute(scope, [node_name(reference) for reference in fetches])
        return [scope.value(reference) for reference in fetches]

    def _initialize(self, scope: "_Scope", name: str) -> None:
        node = self._nodes[name]
        if node.op == "AssignVariableOp":
            variable, value = node.data_inputs

            def compute() -> Value:
                self._execute(scope, [node_name(value)])
                return scope.value(value)

            self._execute(scope, [node_name(variable)])
            self.environment.defer(scope.value(variable), compute)
        elif node.op == "NoOp":
            for predecessor in node.predecessors:
                self._initialize(scope, predecessor)
        else:
            self._execute(scope, [name])

    def call(self, function: str, arguments: Sequence[Value]) -> list[Value]:
        """The outputs of a function of the library."""
        definition = self._function(function)
        names = [argument.name for argument in definition.signature.input_arg]
        nodes = self._body(function)
        scope = _Scope(nodes, {n: [v] for n, v in zip(names, arguments, strict=True)})
        results = [definition.ret[output.name] for output in definition.signature.output_arg]
        effects = [
            name for name in definition.control_ret.values() if self._has_effect(nodes[name])
        ]
        self._execute(scope, [*(node_name(reference) for reference in results), *effects])
        return [scope.value(reference) for reference in results]

    def _function(self, name: str) -> function_pb2.FunctionDef:
        return self._functions[name]

    def _body(self, function: str) -> dict[str, Node]:
        if function not in self._bodies:
            definitions = self._function(function).node_def
            self._bodies[function] = {d.name: Node(d, function) for d in definitions}
        return self._bodies[function]

    def _has_effect(self, node: Node) -> bool:
        if node.op.startswith(_EFFECTS):
            return True
        called = [
            value.func.name
            for value in node.definition.attr.values()
            if value.WhichOneof("value") == "func"
        ]
        return any(self._has_effect(inner) for f in called for inner in self._body(f).values())

    def _execute(self, scope: "_Scope", targets: Iterable[str]) -> None:
        for node in _in_order(scope, targets):
            inputs = [scope.value(reference) for reference in node.data_inputs]
            if node.op == "Merge":
                merged, conditions = control_flow.merge(
                    inputs, [scope.conditions_of(reference) for reference in node.data_inputs]
                )
                scope.values[node.name] = merged
                scope.conditions[node.name] = conditions
                continue
            conditions = scope.conditions_at(node)
            scope.conditions[node.name] = conditions
            if node.op.startswith(_EFFECTS) and conditions:
                before = self.environment.read(inputs[0])
                self.evaluate(node, inputs)
                after = self.environment.read(inputs[0])
                chosen = control_flow.select_under(conditions, after, before)
                self.environment.assign(inputs[0], chosen)
                scope.values[node.name] = []
                continue
            scope.values[node.name] = self.evaluate(node, inputs)

    def evaluate(self, node: Node, inputs: list[Value]) -> list[Value]:
        """The outputs of one node."""
        if node.op in HANDLERS:
            outputs = HANDLERS[node.op](self, node, inputs)
            if outputs is not None:
                return outputs
        if any(is_handle(value) for value in inputs):
            raise UnsupportedOperation(
                op=node.op,
                node=node.name,
                advice=REFUSED.get(node.op)
                or "it acts on a variable or on the data set in a way that is not supported",
            )
        folded = fold(node, inputs)
        if folded is not None:
            return folded
        if node.op in REFUSED:
            raise UnsupportedOperation(op=node.op, node=node.name, advice=REFUSED[node.op])
        try:
            if node.op in self._rules:
                outputs = self._rules[node.op].apply(inputs, node.attributes)
                for output in outputs:
                    if hasattr(output, "op"):
                        self.origins[output.op.type].append(node.name)
                return outputs
            self.origins[node.op].append(node.name)
            return emit(node, inputs)
        except LoweringError:
            raise
        except (ValueError, TypeError, IndexError) as error:
            raise UnsupportedOperation(
                op=node.op,
                node=node.name,
                advice=f"its inputs are of a kind that is not supported ({error})",
            ) from error


class _Scope:
    """The nodes of one graph or function body, and their values so far."""

    def __init__(self, nodes: Mapping[str, Node], values: dict[str, list[Value]]) -> None:
        self.nodes = nodes
        self.values = values
        self.conditions: dict[str, Conditions] = {}

    def value(self, reference: str) -> Value:
        """The value at "name", "name:2" (graphs) or "name:output:2" (function bodies)."""
        name, *rest = reference.split(":")
        outputs = self.values[name]
        if not rest:
            return outputs[0]
        if len(rest) == 1:
            return outputs[int(rest[0])]
        return outputs[_output_offset(self.nodes[name], rest[0]) + int(rest[1])]

    def conditions_of(self, reference: str) -> Conditions:
        """The v1 conditions under which a data edge carries a value."""
        name, *rest = reference.split(":")
        conditions = dict(self.conditions.get(name, {}))
        node = self.nodes.get(name)
        if node is not None and node.op == "Switch":
            predicate = self.value(node.data_inputs[1])
            conditions[id(predicate)] = (predicate, rest[-1:] == ["1"])
        return conditions

    def conditions_at(self, node: Node) -> Conditions:
        conditions: Conditions = {}
        for reference in node.definition.input:
            if reference.startswith("^"):
                conditions.update(self.conditions.get(node_name(reference), {}))
            else:
                conditions.update(self.conditions_of(reference))
        return conditions


def _output_offset(node: Node, output: str) -> int:
    offset = 0
    definition: Any = op_def_registry.get(node.op)
    for argument in definition.output_arg:
        if argument.name == output:
            return offset
        if argument.number_attr:
            offset += int(node.attributes[argument.number_attr])
        elif argument.type_list_attr:
            offset += len(node.attributes[argument.type_list_attr])
        else:
            offset += 1
    raise LoweringError(f"node {node.name!r} ({node.op}) has no output {output!r}")


def _in_order(scope: _Scope, targets: Iterable[str]) -> list[Node]:
    """The nodes not yet executed that `targets` need, each after its predecessors."""
    order: list[Node] = []
    seen = set(scope.values)
    stack = [(target, False) for target in reversed(list(targets))]
    while stack:
        name, expanded = stack.pop()
        if expanded:
            order.append(scope.nodes[name])
            continue
        if name in seen:
            continue
        seen.add(name)
        stack.append((name, True))
        stack.extend((p, False) for p in scope.nodes[name].predecessors if p not in seen)
    return order
