"""From a FederatedTask to a checked plan archive. Everything in here imports TensorFlow.

The way of the data: `process` builds the author's learning process and TFF's
form of it (`block` reads one piece), `model` describes the author's model,
`naming` gives every tensor its name, `additivity` proves that updates can be
summed, `device_graph` lowers and converts the client's work, `server_part`
packs the server's, `checks` compares the result with TFF, `build` does it all.
"""

from device_plan.reference_kernels import use_reference_kernels

# Before any module in here imports TensorFlow.
use_reference_kernels()
