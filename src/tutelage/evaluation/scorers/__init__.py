"""One file a kind of score; each score carries its evidence."""
