"""What production leaves behind, durably: records and signals on their way to the store."""
