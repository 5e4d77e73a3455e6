"""What keeps a run: digests, lock, guard, watchdog, signals and where it came from."""
