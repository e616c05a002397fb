"""Models that mark answers: what they are asked, how replies are read, how far to trust them."""
