"""What is done with a trained network: cases marked, measured, and the evidence kept as files."""
