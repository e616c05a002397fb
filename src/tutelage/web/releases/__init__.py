"""The parts of the releases' pages."""
