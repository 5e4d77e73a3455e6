"""From one raw row to a model's arrays, one way a file: `make(*, ...)`."""
