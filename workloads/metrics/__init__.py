"""What a detector or a segmenter is worth, in NumPy and SciPy alone."""
