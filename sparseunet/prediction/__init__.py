"""From a trained model and a new scan to a segmentation."""
