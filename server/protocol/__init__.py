"""Pure state machines: no clock, thread, socket or disk; randomness is handed in."""
