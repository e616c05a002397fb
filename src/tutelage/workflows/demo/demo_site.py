"""`tutelage up --demo`: a project in which every page has something to show.

Takes the quickstart's project where it was run, else makes a small one with the same data and
model. What needs people or weeks (labels, comparisons, traffic, rollouts, turns) is made up, once;
what the product computes from it is real. A part that can't be filled is left empty and told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tutelage.core.artifact import utc_now
from tutelage.core.config_file import load_config
from tutelage.core.errors import TutelageError
from tutelage.core.events import Emit, Event
from tutelage.core.workspace import CONFIG_NAME, atomic_write
from tutelage.release import bundle
from tutelage.store.feedback import MarkRow
from tutelage.workflows import jobs
from tutelage.workflows.context import Context, last_output, open_context
from tutelage.workflows.demo.demo import write_demo
from tutelage.workflows.demo.demo_build import fill_evaluation, fill_jobs, fill_prompts, fill_turns
from tutelage.workflows.demo.demo_cast import LOCAL, Cast, cast
from tutelage.workflows.demo.demo_people import fill_comparisons, fill_experts
from tutelage.workflows.demo.demo_serving import fill_looks, fill_serving
from tutelage.workflows.outputs import require_output

STAGE = "demo"
_PRICES = b"prices: {hour: 0.4}              # what an hour of the machine costs\n"
_MARK = "demo-site"  # says in the store that it is filled

_PARTS: tuple[tuple[str, Callable[[Cast], None]], ...] = (
    ("experts and their labels", fill_experts),
    ("blind comparisons", fill_comparisons),
    ("two weeks of requests, and rollouts", fill_serving),
    ("drift, and what is worth a label", fill_looks),
    ("a second evaluation", fill_evaluation),
    ("versions of the prompt", fill_prompts),
    ("turns of the loop", fill_turns),
    ("past jobs", fill_jobs),
)


def prepare(directory: Path, emit: Emit, *, port: int = 8321) -> Path:
    """Return the demo's project in `directory`, made and filled if it is not yet."""
    if not (directory / CONFIG_NAME).exists():
        emit(Event(STAGE, "note", f"a small project in {directory}"))
        write_demo(directory, port=port, per_chapter=8)
        config = directory / CONFIG_NAME
        atomic_write(config, config.read_bytes() + _PRICES)
    load_config(directory / CONFIG_NAME)
    ctx = open_context(directory, emit)
    try:
        _train(ctx)
        if not is_filled(ctx):
            fill(ctx)
            _read(ctx)
    finally:
        ctx.store.close()
    return directory


def fill(ctx: Context) -> list[str]:
    """Fill what is empty and return the sentences of what could not be; once in a project."""
    if is_filled(ctx):
        return []
    made, problems = cast(ctx), []
    for name, work in _PARTS:
        ctx.emit(Event(STAGE, "note", f"filling in {name}"))
        try:
            work(made)
        except TutelageError as error:
            problems.append(error.sentence())
            ctx.emit(Event(STAGE, "warning", f"{name}: {error.sentence()}"))
    with ctx.store.begin() as session:
        session.merge(MarkRow(name=_MARK, at=utc_now()))
    ctx.emit(Event(STAGE, "done", "every page has something to show"))
    return problems


def is_filled(ctx: Context) -> bool:
    """Return whether this project was filled before."""
    with ctx.store.session() as session:
        return session.get(MarkRow, _MARK) is not None


def _read(ctx: Context) -> None:
    """Begin to plan and to read the rows as training would; the page shows them when they end."""
    jobs.start(ctx, "plan", by=LOCAL)
    jobs.start(ctx, "tokens", by=LOCAL, arguments=(require_output(ctx, "curate").short,))


def _train(ctx: Context) -> None:
    """Run the loop once, unless there is a release; the verdict of so few rows decides nothing."""
    if last_output(ctx, "curate") is not None and bundle.list_releases(ctx.store):
        return
    from tutelage.workflows.run import run

    run(ctx, force=True)
