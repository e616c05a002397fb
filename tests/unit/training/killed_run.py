"""A training run that kills itself (SIGKILL) when told to: `killed_run.py MODEL RUN [AT]`.

AT is `step:<n>` (after that optimizer step) or `<file>:<n>` (while the checkpoint of step n is
written, right after that file).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

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


def main(model: str, run_dir: str, at: str = "") -> None:
    path = Path(model)

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
    result = train(job, emit=emit)
    print(result.stopped, result.prefix["shared"])


if __name__ == "__main__":
    main(*sys.argv[1:])
