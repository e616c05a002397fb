"""Text in, text out: what a model answers, from any engine, through one small protocol."""
