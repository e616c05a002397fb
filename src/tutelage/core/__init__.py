"""The words of the product: records, config, errors, artifacts. Imports nothing of ours."""
