"""What the teaching pages share: turns of a conversation, answers side by side, verdicts."""
