"""What a report is made of: figures, a page without scripts, trackers beside it."""
