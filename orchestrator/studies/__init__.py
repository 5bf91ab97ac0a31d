"""Whole studies: read, foretold, compared, told about, cleaned up."""
