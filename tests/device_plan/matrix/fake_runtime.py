"""A TFLite runtime whose graphs are words: it does by numpy what the word says.

`right` trains a model with one weight vector w on x [n, 3]: each batch subtracts
the sum of its rows, and the seed's first number if there is a seed; the update is
what w has lost. `eval` counts rows. Other words are what can go wrong.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


class OpResolverType:
    BUILTIN_WITHOUT_DEFAULT_DELEGATES = "plain"


class Interpreter:
    def __init__(self, model_path, num_threads, experimental_op_resolver_type="default"):
        assert num_threads == 1
        self.word = Path(model_path).read_text()
        self.plain = experimental_op_resolver_type == "plain"
        if self.word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.word == "hang":
            time.sleep(1000)
        elif self.word == "babble":
            sys.stdout.write("[1, 2, 3]\n")
            sys.stdout.flush()
            os._exit(0)
        elif self.word == "say nothing":
            os._exit(0)
        elif self.word == "exit":
            sys.stderr.write("first line\nno such instruction\n")
            sys.stderr.flush()
            os._exit(3)
        elif self.word == "refuse":
            raise ValueError("Op builtin_code out of range: 158.")

    def get_signature_list(self):
        return {
            "begin": {"inputs": ["w", *self.seed()], "outputs": ["state/0", "state/1"]},
            "batch": {"inputs": ["state/0", "x"], "outputs": ["state/0"]},
            "finish": {"inputs": ["w", "state/0"], "outputs": ["delta/w"]},
            "eval": {"inputs": ["x"], "outputs": ["rows", "predictions"]},
        }

    def seed(self):
        return ["session/seed"] if self.word == "seeded" else []

    def get_signature_runner(self, name):
        return getattr(self, name)

    def begin(self, **tensors):
        first = tensors["session/seed"][0] if "session/seed" in tensors else 0
        return {"state/0": tensors["w"] - np.float32(first)}

    def batch(self, **tensors):
        if self.word == "ask for more":
            raise RuntimeError("Failed to allocate memory.")
        lost = tensors["x"].sum(axis=0)
        if self.word == "wrong" or (self.word == "wrong when plain" and self.plain):
            lost = lost * np.float32(1.001)
        return {"state/0": tensors["state/0"] - lost}

    def finish(self, **tensors):
        delta = tensors["w"] - tensors["state/0"]
        return {"delta/w": delta * np.float32("nan") if self.word == "nan" else delta}

    def eval(self, **tensors):
        rows = np.array(len(tensors["x"]), np.int32)
        return {"rows": rows, "predictions": tensors["x"][:, 0]}
