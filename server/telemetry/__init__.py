"""What a server says of itself: counts for Prometheus, events for the log, health."""
