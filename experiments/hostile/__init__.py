"""Files that somebody has tampered with, by the ten thousand."""
