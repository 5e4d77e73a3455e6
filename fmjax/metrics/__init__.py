"""Metrics on host arrays: one file a metric, each with `compute`, and the intervals."""
