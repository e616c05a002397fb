"""Base + adapter + prompt + decoding as one immutable thing, and how traffic moves to it."""
