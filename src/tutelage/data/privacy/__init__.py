"""Personal and health identifiers: finding them, replacing them, and getting them back by key."""
