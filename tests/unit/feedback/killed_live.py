"""Scores logged answers in a process that may be killed: `killed_live.py PROJECT`.

The pid stands in PROJECT/pid before the first answer is scored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tutelage.workflows.context import open_context
from tutelage.workflows.feedback.live_evaluation import score_log


def main() -> None:
    root = Path(sys.argv[1])
    ctx = open_context(root)
    (root / "pid").write_text(str(os.getpid()))
    score_log(ctx)
    ctx.store.close()


if __name__ == "__main__":
    main()
