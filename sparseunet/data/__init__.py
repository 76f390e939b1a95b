"""Nouns: grids, images, labels, annotations and datasets, and how they are read and written."""
