"""The command line of Nightshift and its demo."""

__version__ = "0.1.0"
