"""Looks at an installation, a site or a study, and says of each thing whether it is well and what to do."""
