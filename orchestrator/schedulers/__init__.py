"""Batch schedulers: pure adaptors that build command lines and read what they print."""
