"""Whether a process can serve, and whether devices should be sent to it."""
