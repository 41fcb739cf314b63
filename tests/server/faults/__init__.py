"""Deterministic fault testing: the real actors on simulated machines (docs/fault-testing.md)."""
