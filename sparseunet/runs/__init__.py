"""A run: one training with its record, from request to segmentations of the cases it held out."""
