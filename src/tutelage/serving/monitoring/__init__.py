"""What an operator sees: metrics, traces, events, logs, alerts."""
