"""The search: ask, run, tell, until the budget is spent."""
