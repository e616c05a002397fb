"""Tables, sessions and migrations: one module a family of rows. No decisions are made here."""
