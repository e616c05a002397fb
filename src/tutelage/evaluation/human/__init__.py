"""People judge answers blind: what is asked, on which side, and what the judgements add up to."""
