"""The demo: handwritten digits, learned by virtual devices at their accelerated nights."""

from nightshift.demo.command import demo

__all__ = ["demo"]
