"""The step from a round's sums to the next model, by TensorFlow in a process of its own."""
