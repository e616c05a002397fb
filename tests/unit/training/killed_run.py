"""A training run that kills itself (SIGKILL) when told to: `killed_run.py MODEL RUN [AT]`.

AT is `step:<n>` (after that optimizer step), `<file>:<n>` (while the checkpoint of step n is
written, right after that file), `call:<n>` (at the n-th function call of the training) or
`write:<n>` (at the n-th one inside of a checkpoint's writing). `count:` kills nothing and prints
how many calls there are of both.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, train

RECIPE = Recipe(
    rank=4,
    alpha=8.0,
    dropout=0.1,
    learning_rate=5e-3,
    epochs=3,
    batch_size=4,
    micro_batch=2,
    eval_every=2,
    patience=50,
    checkpoint_every=2,
)


def rows(first: int, count: int) -> list[Example]:
    """Return rows whose answer is the parity of a number."""
    return [
        Example(
            messages=(
                Message(role="user", content=f"number {index}"),
                Message(role="assistant", content="odd" if index % 2 else "even"),
            )
        )
        for index in range(first, first + count)
    ]


class Calls:
    """Counts function calls, Python's and C's, and kills the process at the chosen one."""

    def __init__(self, at: str) -> None:
        self.kind, _, number = at.partition(":")
        self.last = int(number or 0)
        self.calls = self.writes = self.depth = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name == "save_checkpoint":
            self.depth += 1
        elif event == "return" and frame.f_code.co_name == "save_checkpoint":
            self.depth -= 1
        self.calls += 1
        self.writes += self.depth
        reached = self.writes if self.kind == "write" else self.calls
        if self.last and reached == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def main(model: str, run_dir: str, at: str = "") -> None:
    path = Path(model)
    calls = Calls(at)

    def emit(event: Event) -> None:
        if event.kind == "progress":
            here = f"step:{event.done:.0f}"
        else:
            here = f"{event.data.get('checkpoint')}:{event.data.get('step')}"
        if here == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if event.kind == "note" and event.message.startswith("Continuing"):
            print(event.message)

    source = ModelSource(spec=model, name="tiny", kind="directory", path=path, digest="0" * 64)
    prompt = "Say whether the number is odd or even, in one word."
    job = TrainingJob(source, rows(0, 16), rows(50, 4), prompt, RECIPE, Path(run_dir))
    if calls.kind in ("call", "write", "count"):
        sys.setprofile(calls)
    try:
        result = train(job, emit=emit)
    finally:
        sys.setprofile(None)
    if calls.kind == "count":
        print(calls.calls, calls.writes)
        return
    print(result.stopped, result.prefix["shared"])


if __name__ == "__main__":
    main(*sys.argv[1:])
