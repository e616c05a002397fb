"""Evidence: scores, intervals, forgetting, a verdict, a report. Knows nothing of training."""
