"""Examples of many devices, from public data sets or made up, for the models next door.

Nothing here imports TensorFlow before somebody asks for TFF's own data sets.
"""
