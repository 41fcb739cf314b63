"""The LSTM cell whose input and forget gates are one, with a recurrent projection."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class CoupledInputForgetCell(tf.keras.layers.Layer):  # type: ignore[misc]
    """One step of a CIFG LSTM with projection, for tf.keras.layers.RNN.

    With the input x [batch, inputs], the projected output r [batch, projection]
    and the cell state c [batch, units] of the step before, and sigma the logistic
    function:

        f_t  = sigma(x_t W_f + r_(t-1) R_f + b_f)            what is kept
        g_t  = tanh (x_t W_g + r_(t-1) R_g + b_g)            what is proposed
        o_t  = sigma(x_t W_o + r_(t-1) R_o + b_o)            what is shown
        c_t  = f_t * c_(t-1) + (1 - f_t) * g_t
        r_t  = (o_t * tanh(c_t)) P

    Products with * are element by element. The input gate of an ordinary LSTM is
    1 - f_t here, which saves a quarter of its parameters (Greff et al. 2017, "LSTM:
    A Search Space Odyssey", variant CIFG). The recurrent projection P is that of Sak
    et al. 2014, "Long Short-Term Memory Recurrent Neural Network Architectures for
    Large Scale Acoustic Modeling", without peepholes. Hard et al. 2018 train this
    cell in Gboard.

    Weights, all float32: `kernel` [inputs, 3 units], `recurrent_kernel`
    [projection, 3 units] and `bias` [3 units], each with the gates in the order
    f, g, o; `projection_kernel` [units, projection]. In all
    3 units (inputs + projection + 1) + units projection parameters.

    b_f begins at 1 as in Keras' LSTM, so that a new cell remembers.

    Args:
        units: Width of the cell state, at least 1.
        projection: Width of the output, at least 1.
    """

    def __init__(self, units: int, projection: int, **layer: Any) -> None:
        super().__init__(**layer)
        if units < 1 or projection < 1:
            raise ValueError(
                f"units and projection must be at least 1, not {units} and {projection}"
            )
        self.units = units
        self.projection = projection
        #: Widths of the states r and c, as tf.keras.layers.RNN asks for them.
        self.state_size = [projection, units]
        self.output_size = projection

    def build(self, input_shape: Any) -> None:
        gates = 3 * self.units
        self.kernel = self.add_weight(
            "kernel", (input_shape[-1], gates), initializer="glorot_uniform"
        )
        self.recurrent_kernel = self.add_weight(
            "recurrent_kernel", (self.projection, gates), initializer="orthogonal"
        )
        self.bias = self.add_weight("bias", (gates,), initializer=self._initial_bias)
        self.projection_kernel = self.add_weight(
            "projection_kernel", (self.units, self.projection), initializer="glorot_uniform"
        )
        super().build(input_shape)

    def _initial_bias(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
        forget = tf.ones((self.units,), dtype)
        return tf.concat([forget, tf.zeros((shape[0] - self.units,), dtype)], 0)

    def call(self, inputs: Any, states: Sequence[Any], training: Any = None) -> Any:
        """Returns r_t, and the states [r_t, c_t]."""
        del training  # The cell has no dropout; RNN passes the argument on.
        output, cell = states
        gates = (
            tf.matmul(inputs, self.kernel) + tf.matmul(output, self.recurrent_kernel) + self.bias
        )
        forget, proposed, shown = tf.split(gates, 3, axis=-1)
        keep = tf.sigmoid(forget)
        cell = keep * cell + (1.0 - keep) * tf.tanh(proposed)
        output = tf.matmul(tf.sigmoid(shown) * tf.tanh(cell), self.projection_kernel)
        return output, [output, cell]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "units": self.units, "projection": self.projection}
