"""One training signal a file; see CONTRIBUTING.md for the contract."""
