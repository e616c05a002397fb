"""What production says: feedback, logs, drift, live scores, mining, A/B; forgetting a user."""
