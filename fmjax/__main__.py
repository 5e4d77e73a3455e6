"""`python -m fmjax VERB ...` is `fmjax VERB ...`."""

from fmjax import cli

if __name__ == "__main__":
    cli.main()
