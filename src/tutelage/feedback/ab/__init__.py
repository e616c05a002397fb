"""Which of two releases users are better off with: the analysis of an A/B test."""
