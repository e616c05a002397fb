"""The parts of the prompts' pages."""
