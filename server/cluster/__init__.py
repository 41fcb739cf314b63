"""Cluster mode: the actor tier on Ray, with one process for each part that may die alone."""
