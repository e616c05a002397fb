"""What serves: deployments, rollouts, keys, checks, use, and the gateway that joins them."""
