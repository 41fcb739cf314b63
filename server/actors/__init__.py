"""The actor hierarchy: coordinator, master aggregators, aggregators, selectors."""
