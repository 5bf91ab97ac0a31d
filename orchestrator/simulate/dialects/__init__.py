"""What each scheduler's commands print, on one emulated cluster."""
