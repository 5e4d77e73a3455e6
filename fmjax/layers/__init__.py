"""What two or more model families share: pure functions, then thin linen modules."""
