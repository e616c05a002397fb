"""Logs of other tools as production records, and records as files that other tools read."""
