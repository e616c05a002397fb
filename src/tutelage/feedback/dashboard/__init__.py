"""How releases do over time: quality, latency, cost and feedback."""
