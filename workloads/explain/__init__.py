"""What a trained network looks at, and how sure it is: maps that can be written, measured and looked at."""
