"""What `tutelage data …` does, one file a family: decisions about rows, and their evidence."""
