"""Plans, training, search and export: what lies between a dataset version and its adapter."""
