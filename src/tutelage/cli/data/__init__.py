"""`tutelage data …`: one file a family of commands."""
