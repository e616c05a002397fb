"""Forgetting a user: their records and everything that was made of them."""
