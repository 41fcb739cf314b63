"""Models a team starts from, and what makes any Keras model trainable with TFLite builtins."""
