"""The parts of the evaluations' pages."""
