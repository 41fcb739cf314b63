"""The device side: a reference runtime in Python that behaves as a phone's app would.

It meets the server over HTTP only, runs plans with tflite-runtime, and never
imports TensorFlow. `device.Device` is one device; `fleet.Fleet` runs many
virtual ones in few processes.
"""
