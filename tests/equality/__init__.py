"""The running system against TFF's own simulation of the same process."""
