"""Lowers a client computation of TensorFlow Federated to TFLite builtins.

TFF compiles the client's part of a learning process to one TensorFlow graph.
`ClientWork` walks that graph and builds it anew, as functions without variables,
branches or data sets, from operations that every TFLite runtime has.

The way through the modules: `client_work` splits the computation, `graph_walk`
executes it, `control_flow`, `variables`, `shapes` and `dataset` handle what is
not arithmetic, `rules` says what replaces operations that have no builtin.
"""

from tflite_models.lowering.client_work import ClientWork
from tflite_models.lowering.errors import LoweringError, UnsupportedOperation, layer_of
from tflite_models.lowering.forward_pass import ForwardPass
from tflite_models.lowering.lowered import Profile

__all__ = [
    "ClientWork",
    "ForwardPass",
    "LoweringError",
    "Profile",
    "UnsupportedOperation",
    "layer_of",
]
