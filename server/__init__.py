"""The selector tier, the actor hierarchy, storage and the model update."""
