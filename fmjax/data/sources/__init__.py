"""Sources, one a file: `load(split, *, ...) -> Source`."""
