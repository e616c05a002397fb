"""Whether live traffic still is what it was: comparisons, a watch, and what they say in words."""
