"""One file a way of moving traffic."""
