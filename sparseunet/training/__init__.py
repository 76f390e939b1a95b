"""Learning from exactly the voxels that somebody annotated."""
