"""One model family a file: `Model`, `SIZES`, shapes in docstrings, nothing else."""
