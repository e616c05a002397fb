"""Judges an evaluation's answers in a process that may be killed: `killed_judge.py PROJECT`.

The pid stands in PROJECT/pid before the first request.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tutelage.workflows.context import open_context
from tutelage.workflows.evaluation.judge import judge


def main() -> None:
    root = Path(sys.argv[1])
    ctx = open_context(root)
    (root / "pid").write_text(str(os.getpid()))
    judge(ctx)
    ctx.store.close()


if __name__ == "__main__":
    main()
