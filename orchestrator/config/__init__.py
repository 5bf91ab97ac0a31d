"""Files that people write, read strictly: studies, comparisons, sites."""
