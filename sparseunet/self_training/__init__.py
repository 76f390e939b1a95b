"""Pseudo-labels: labels that a model gives to unannotated voxels."""
