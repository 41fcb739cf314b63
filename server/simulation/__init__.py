"""The simulated runtime: the protocol's state machines under a virtual clock."""
