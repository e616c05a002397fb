"""What experts say about rows: giving out, collecting, comparing and deciding."""
