"""Plans, training and search: what lies between a dataset version and its adapter."""
