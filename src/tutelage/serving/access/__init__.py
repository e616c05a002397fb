"""Who may call and how much: keys, rate limits, budgets, and what was used."""
