"""Prompts, releases and rollouts: made, imported, exported, verified, traced back, moved."""
