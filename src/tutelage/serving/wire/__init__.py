"""The OpenAI protocol on both sides: what clients send and get, and what engines are asked."""
