"""Networks built from a plan, and their weights on disk."""
