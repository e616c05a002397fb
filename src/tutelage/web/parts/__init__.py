"""What pages are made of: text, cards, tables, plots, editors. No part knows a page."""
