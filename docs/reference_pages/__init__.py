"""Writes reference pages from the code; used by docs/hooks.py while the site is built."""
