"""What the rows are worth: how far experts agree, which rows are strange, doubtful, or best."""
