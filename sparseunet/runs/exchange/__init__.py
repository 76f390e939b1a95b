"""Trained models that come from elsewhere and go elsewhere: nnU-Net's, and files of one model."""
