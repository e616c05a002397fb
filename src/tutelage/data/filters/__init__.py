"""The validation layers: schema, content, statistics. Each finding has an id and a remedy."""
