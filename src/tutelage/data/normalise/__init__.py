"""One way to write each format, without changing what it means: text, JSON, SQL, code, labels."""
