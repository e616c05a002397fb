"""The desk at which a person labels: one item, what they say about it, and the way back."""
