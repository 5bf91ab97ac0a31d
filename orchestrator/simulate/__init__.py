"""Time that jumps, and clusters that are emulated, for rehearsals and tests."""
