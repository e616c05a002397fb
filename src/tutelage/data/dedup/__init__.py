"""Exact and near duplicates: clusters of rows that say the same."""
