"""The servers behind a gateway: which are there, which are well, what they hold."""
