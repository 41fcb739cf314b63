"""Tests of the model update."""
