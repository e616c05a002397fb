"""The gateway: OpenAI-compatible, never imports torch."""
