"""What production says is worth an expert's minute: scanned, explained, grouped and ranked."""
