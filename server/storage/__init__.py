"""What outlives the server's processes: blobs, leases, and the registry of tasks and models."""
