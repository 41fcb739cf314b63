"""Tests against `nightshift serve` itself: real processes, real HTTP, a real database."""
