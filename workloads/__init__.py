"""TensorFlow medical-image trainings as trial programs; ``python -m workloads list`` names them."""
