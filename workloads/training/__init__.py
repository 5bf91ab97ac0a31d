"""What every training shares: the machine's set-up and the loop."""
