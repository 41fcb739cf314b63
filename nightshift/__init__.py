"""The command line of Nightshift and its demo."""
