"""Runs hosted tuning in processes that may be killed: `killed_hosted.py`, one job a line of stdin.

A line is PROJECT DATASET_HASH. Each job runs in a forked child, whose pid stands in PROJECT/pid
before its first request; its exit status is printed when it has ended.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import alembic.command  # noqa: F401  loaded once, before the children are forked

from tutelage.core import plugins
from tutelage.training.hosted.base import Pace
from tutelage.workflows.context import find_artifact, open_context
from tutelage.workflows.training.hosted import train_hosted


def job(project: str, dataset: str) -> None:
    root = Path(project)
    (root / "pid").write_text(str(os.getpid()))
    ctx = open_context(root)
    artifact = find_artifact(ctx.store, dataset)
    assert artifact is not None
    made = train_hosted(ctx, artifact, yes=True, pace=Pace(0, 0)).artifact
    (root / "made").write_text(made.hash)
    ctx.store.close()


def main() -> None:
    for group, name in (("hosted", "openai"), ("hosted", "azure"), ("detectors", "rules")):
        plugins.load(group, name)  # once, before the children are forked
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                job(*line.split())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
