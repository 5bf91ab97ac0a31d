"""Images and labels: files, datasets, patches, and phantoms that stand in for patients."""
