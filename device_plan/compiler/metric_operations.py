"""Which of a model's metrics an operation belongs to, so that errors can name the metric."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

_NAMELESS = re.compile(r"the computation \(node '[^']*'\) uses (\w+)")


def metric_operations(model: Any) -> dict[str, str]:
    """Metric by the type of an operation that its update uses and the forward pass does not.

    Args:
        model: A tff.learning.models.VariableModel whose forward pass was called, and is a
            function (as TFF's own models have it), in the current tf.Graph.
    """
    graph = tf.compat.v1.get_default_graph()
    owners = _owners(model)
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    found: dict[str, str] = {}
    for call in graph.get_operations():
        body = library.get(call.node_def.attr["f"].func.name)
        if body is None:
            continue
        arguments = {
            argument.name: owners[tensor.name]
            for argument, tensor in zip(body.signature.input_arg, call.inputs, strict=False)
            if tensor.name in owners
        }
        nodes = {node.name: node for node in body.node_def}
        results = (_source(result) for result in body.ret.values())
        forward = _types(_ancestors(results, nodes), nodes, library)
        for node in body.node_def:
            metrics = [arguments[s] for s in map(_source, node.input) if s in arguments]
            for kind in _types(_ancestors([node.name], nodes), nodes, library) - forward:
                for metric in metrics:
                    found.setdefault(kind, metric)
    return found


def naming_the_metric(message: str, operations: Mapping[str, str]) -> str:
    """The lowering's complaint with the metric in it, if an operation of a metric is its cause."""
    match = _NAMELESS.search(message)
    metric = operations.get(match[1]) if match else None
    if not match or metric is None:
        return message
    return message.replace(match[0], f"the metric {metric!r} uses {match[1]}")


def _owners(model: Any) -> dict[str, str]:
    """Metric by the name of the tensor that stands for one of its variables."""
    values = model.report_local_unfinalized_metrics()
    names = [name for name, value in values.items() for _ in tf.nest.flatten(value)]
    variables = list(model.local_variables)
    if len(names) != len(variables):
        return {}
    return {variable.handle.name: name for variable, name in zip(variables, names, strict=True)}


def _source(reference: str) -> str:
    """The node or argument that an input of a function's node comes from."""
    return reference.removeprefix("^").partition(":")[0]


def _ancestors(names: Iterable[str], nodes: Mapping[str, Any]) -> set[str]:
    """The nodes and all that they need, without the calls of other metrics' updates."""
    found: set[str] = set()
    waiting = [name for name in names if name in nodes]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            # A control input orders two updates; what is computed comes by the others.
            data = [_source(i) for i in nodes[name].input if not i.startswith("^")]
            waiting += [source for source in data if source in nodes]
    return found


def _types(names: Iterable[str], nodes: Mapping[str, Any], library: Mapping[str, Any]) -> set[str]:
    """The types of the nodes and of those in the functions they call."""
    found: set[str] = set()
    waiting = [nodes[name] for name in names]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        found.add(node.op)
        for value in node.attr.values():
            called = value.func.name
            if called in library and called not in seen:
                seen.add(called)
                waiting += library[called].node_def
    return found
