"""From a dataset version to an adapter: plan, encode, train, check, keep."""
