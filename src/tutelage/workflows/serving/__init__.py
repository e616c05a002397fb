"""What serves: keys, checks, use, alerts, and the gateway that joins them."""
