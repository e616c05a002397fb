"""One file a place where a run's numbers can go; tracker.py picks them by name."""
