"""Runs the command line: `python -m tutelage`. Nothing else is here."""

from __future__ import annotations

from tutelage.cli.main import main

if __name__ == "__main__":
    main()
