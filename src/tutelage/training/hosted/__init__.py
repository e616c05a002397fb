"""Fine-tuning at a service: rows up, a job watched, a tuned model's name back. No torch here."""
