"""The people who use the web page: accounts, sessions, passwords, what they did and typed."""
