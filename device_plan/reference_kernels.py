"""Has TensorFlow compute with its own kernels rather than oneDNN's.

What TFF computes is the reference that a plan is held to, and what an author sees in
a simulation. oneDNN's kernels, which TensorFlow 2.14 takes by default on x86, are not
right for it: the filter gradient of a convolution with a window of one and a stride
above one (a residual network's shortcut), where the last entries of a side are read by
no position, writes past its memory with AVX-512 and gives other numbers with AVX2. They
take half the time for convolutions, so an author who knows that a model has no such
layer may set the variable to 1.
"""

import os

#: Read by TensorFlow once, when it is imported.
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


def use_reference_kernels() -> None:
    """For this process, if TensorFlow is not imported yet, and for those that it starts.

    What the environment says already is kept.
    """
    os.environ.setdefault(VARIABLE, "0")
