"""Networks as plain functions of their hyperparameters."""
