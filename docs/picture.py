"""Draw docs/assets/quickstart.svg, the README's picture, from the JSON of a real demo run.

`tutelage quickstart demo --json > run.json`, then `python docs/picture.py run.json`.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

from rich.console import Console

from tutelage.cli.finish import quickstart_view

TARGET = Path(__file__).parent / "assets" / "quickstart.svg"


def main() -> None:
    """Write the picture of the run in the file named on the command line."""
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    console.print(quickstart_view(data, Path("demo")))
    svg = console.export_svg(title="make demo")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # no fonts from other hosts
    TARGET.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
