"""What can go wrong in a lowering, said in the author's terms."""


class LoweringError(ValueError):
    """The computation cannot become a TFLite training graph; the message says why."""


class UnsupportedOperation(LoweringError):
    """An operation without a form in TFLite builtins.

    Attributes:
        op: The TensorFlow operation, e.g. "Conv3DBackpropFilterV2".
        layer: The author's layer, or "" if the operation is in none.
    """

    def __init__(self, *, op: str, node: str, advice: str) -> None:
        self.op = op
        self.layer = layer_of(node)
        place = f"layer {self.layer!r}" if self.layer else f"the computation (node {node!r})"
        super().__init__(f"{place} uses {op}, which has no form in TFLite builtins; {advice}")


#: Path components that TensorFlow and TFF put around the author's names.
_SCAFFOLD = frozenset({"gradients", "gradient_tape", "subcomputation", "StatefulPartitionedCall"})


def layer_of(node: str) -> str:
    """The Keras layer a node belongs to, from its name: model/layer/operation, or ""."""
    parts = [part for part in node.split("/") if part not in _SCAFFOLD]
    return parts[1] if len(parts) >= 3 else ""
