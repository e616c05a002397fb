"""Evaluating, judging and gating: from a candidate to the evidence for it or against it."""
