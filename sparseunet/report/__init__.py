"""Pictures of runs and results."""
