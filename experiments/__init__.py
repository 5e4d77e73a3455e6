"""One folder a paper or claim, each run by `python -m experiments.NAME.run`."""
