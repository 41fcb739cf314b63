"""The runtime matrix: a plan's graphs on every TFLite runtime of a table.

Each runtime lives in an environment of its own (`environment`, `pythons`) and is
driven by a subprocess that executes one file (`runner`) on cases whose results
TFF computed (`case`, `bundle`). `matrix` runs it all; `table` reads the runtimes.
Nothing here imports TensorFlow or a TFLite runtime.
"""
