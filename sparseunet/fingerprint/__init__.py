"""Measure a dataset, having looked for everything that is wrong with it, in one pass."""
