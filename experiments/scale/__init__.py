"""Paper-scale configs compiled for TPU slices, without a TPU."""
