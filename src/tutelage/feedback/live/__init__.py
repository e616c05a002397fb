"""Scores of answers while they are served, and what they say of a release."""
