"""Keras layers, losses and metrics that the models share. Importing them imports TensorFlow."""
