"""Examples out again: OpenAI JSON lines, CSV, Parquet."""
