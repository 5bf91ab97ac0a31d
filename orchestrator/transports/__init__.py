"""Commands and files on a site, here or on a login node elsewhere."""
