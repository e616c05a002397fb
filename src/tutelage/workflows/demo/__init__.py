"""The demo: its rows, its loop run once, and the filled project behind `tutelage up --demo`."""
