"""Training rows that a teacher model writes: how it is asked, and what is believed of it."""
