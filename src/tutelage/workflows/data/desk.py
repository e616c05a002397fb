"""The Python API for rows: `project.data`, `.versions`, `.experts`, `.quality`: a method a command.

Each method calls the function its command calls; what is heavy is imported on use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.core.example import SplitName
    from tutelage.data.dedup.view import Cluster
    from tutelage.data.diff import VersionDiff
    from tutelage.data.quality.agreement import Agreement
    from tutelage.data.quality.balance import Balance
    from tutelage.data.valuation import Valuation
    from tutelage.workflows.data.experts import Kept, Shown
    from tutelage.workflows.data.experts_draft import Drafted
    from tutelage.workflows.data.export import Exported
    from tutelage.workflows.data.files import Imported
    from tutelage.workflows.data.fix import Fixes
    from tutelage.workflows.data.learning import CurveReport, Suggested
    from tutelage.workflows.data.privacy import FileReport
    from tutelage.workflows.data.quarantine import Waiting
    from tutelage.workflows.training.token_view import TokenView


class DataDesk:
    """`project.data`: files in and out, checks and repairs, duplicates, identifiers."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def import_files(self, *sources: str | Path, to: str | None = None) -> Imported:
        """Bring files of any known format into data/ as chat JSON lines."""
        from tutelage.workflows.data.files import import_into

        return import_into(self._ctx, [str(source) for source in sources], to=to)

    def export(
        self,
        output: str | Path,
        *,
        format: str | None = None,
        splits: Sequence[SplitName] | None = None,
        version: str | None = None,
    ) -> Exported:
        """Write a dataset version (unset: the newest) as openai, csv or parquet."""
        from tutelage.workflows.data.export import Export, export_version

        chosen = tuple(splits) if splits is not None else None
        return export_version(self._ctx, Path(output), Export(format, chosen), version)

    def check(self) -> dict[str, Any]:
        """Read and check the sources without writing: detected, kept, lost, findings."""
        from tutelage.workflows.data.check import check

        return check(self._ctx)

    def fix(self, *, dry_run: bool = False) -> Fixes:
        """Apply the remedies that are certain, as one batch of repairs; return the changes."""
        from tutelage.workflows.data.fix import fix

        return fix(self._ctx, dry_run=dry_run)

    def quarantine(self, finding: str | None = None) -> list[Waiting]:
        """Return the rows that wait for a person, each with its reason and remedy."""
        from tutelage.workflows.data.quarantine import quarantine

        return quarantine(self._ctx, finding)

    def duplicates(self, kind: str | None = None) -> list[Cluster]:
        """Return clusters of rows that say the same (exact, near, semantic; unset: all)."""
        from tutelage.workflows.data.duplicates import find

        return find(self._ctx, kind)

    def similar_to(self, example_id: str, threshold: float | None = None) -> Cluster:
        """Return a row and those like it, as one cluster."""
        from tutelage.workflows.data.duplicates import similar_to

        return similar_to(self._ctx, example_id, threshold)

    def decide(
        self,
        cluster: Cluster,
        *,
        keep: str | None = None,
        label: str | None = None,
        answer: str | None = None,
        drop: bool = False,
        reason: str = "",
    ) -> str | None:
        """Apply one decision to all rows of a cluster; return the batch that undoes it."""
        from tutelage.workflows.data.duplicates import Decision, apply

        return apply(self._ctx, cluster, Decision(keep, drop, label, answer, reason))

    def repairs(self) -> list[dict[str, Any]]:
        """Return every batch of changes people decided, newest first."""
        from tutelage.workflows.data.repairs import batches

        return batches(self._ctx)

    def undo(self, batch: str) -> int:
        """Take a batch of changes back; return how many were in force."""
        from tutelage.workflows.data.repairs import undo

        return undo(self._ctx, batch)

    def redact(self, source: str | Path, output: str | Path | None = None) -> FileReport:
        """Write a copy of a file with pseudonyms in the place of identifiers."""
        from tutelage.workflows.data.privacy import redact_file

        return redact_file(self._ctx, Path(source), Path(output) if output else None)

    def restore(self, source: str | Path, output: str | Path | None = None) -> dict[str, Any]:
        """Write a copy of a redacted file with the identifiers back; needs the key."""
        from tutelage.workflows.data.privacy import restore_file

        return restore_file(self._ctx, Path(source), Path(output) if output else None)


class VersionsDesk:
    """`project.versions`: the dataset versions there are, and what changed between them."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def list(self) -> list[dict[str, Any]]:
        """Return every version, newest first."""
        from tutelage.workflows.data.versions import versions

        return versions(self._ctx)

    def diff(self, before: str | None = None, after: str | None = None) -> VersionDiff:
        """Return what changed between two versions (unset: the last two)."""
        from tutelage.workflows.data.versions import diff

        return diff(self._ctx, before, after)

    def show(self, example_id: str) -> dict[str, Any]:
        """Return one row with its origin, side, cluster, findings and repairs."""
        from tutelage.workflows.data.versions import show

        return show(self._ctx, example_id)

    def tokens(self, version: str | None = None) -> TokenView:
        """Return which tokens training learns, reads and cuts in a version (unset: the newest)."""
        from tutelage.workflows.data.versions import named
        from tutelage.workflows.training.token_view import make

        return make(self._ctx, named(self._ctx, version))


class ExpertsDesk:
    """`project.experts`: who labels what, what they said, and how far they agree.

    `preferences` keeps and counts what people prefer of two answers.
    """

    def __init__(self, context: Context) -> None:
        from tutelage.workflows.data.preferences import PreferenceDesk

        self._ctx = context
        self.preferences = PreferenceDesk(context)

    def add(self, *names: str) -> list[str]:
        """Add annotators; return who is new or back."""
        from tutelage.workflows.data.experts_people import add_annotators

        return add_annotators(self._ctx, names)

    def guideline(self, text: str, *, note: str = "", author: str | None = None) -> int:
        """Keep a new version of the guideline; return its number."""
        from tutelage.workflows.data.experts_people import set_guideline

        return set_guideline(self._ctx, text, note=note, author=author)

    def assign(self, people: Sequence[str], **order: Any) -> dict[str, Any]:
        """Give items out; `order` holds the fields of Order: overlap, count, source, file, …"""
        from tutelage.workflows.data.experts_items import Order, assign

        return assign(self._ctx, Order(tuple(people), **order))

    def next(self, annotator: str) -> Shown | None:
        """Return the next item for a person, leased to them; None if nothing is left."""
        from tutelage.workflows.data.experts import next_item

        return next_item(self._ctx, annotator)

    def submit(self, item: str, annotator: str, **answer: Any) -> Kept:
        """Keep an answer; `answer` holds the fields of Given: label, answer, seconds, comment, …"""
        from tutelage.workflows.data.experts import Given, submit

        return submit(self._ctx, Given(item, annotator, **answer))

    def draft(self, count: int | None = None) -> Drafted:
        """Have the teacher draft items that nobody answered yet; an expert corrects them."""
        from tutelage.workflows.data.experts_draft import draft

        return draft(self._ctx, count)

    def import_answers(self, path: str | Path, **reading: Any) -> dict[str, Any]:
        """Import an export of Label Studio or Argilla."""
        from tutelage.workflows.data.experts_import import import_answers

        return import_answers(self._ctx, Path(path), **reading)

    def agreement(self, **asked: Any) -> Agreement:
        """Return how far the experts agree, with intervals; `asked`: level, order, batch, seed."""
        from tutelage.workflows.data.experts_review import agree

        return agree(self._ctx, **asked)

    def disputed(self, count: int | None = None) -> list[dict[str, Any]]:
        """Return the items that need a decision, the most disagreed first."""
        from tutelage.workflows.data.experts_review import disputed

        return disputed(self._ctx, count)

    def adjudicate(self, item: str, *, by: str, **decision: Any) -> dict[str, Any]:
        """Decide an item; `decision` holds label or answer, and why."""
        from tutelage.workflows.data.experts_review import adjudicate

        return adjudicate(self._ctx, item, by=by, **decision)

    def people(self) -> list[dict[str, Any]]:
        """Return every annotator's record: answers, pace, reliability, what they mix up."""
        from tutelage.workflows.data.experts_review import people

        return people(self._ctx)

    def publish(self, **how: Any) -> dict[str, Any]:
        """Bring what was decided into the sources; the next `curate` takes it up."""
        from tutelage.workflows.data.experts_publish import publish

        return publish(self._ctx, **how)


class QualityDesk:
    """`project.quality`: which rows to doubt, to keep, to label next, and what more would bring."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def balance(self, *, days: float | None = None) -> Balance:
        """Compare classes, refusals and, where there is some, production traffic with the rows."""
        from tutelage.workflows.data.balance import balance

        return balance(self._ctx, days=days)

    def suggest(self, pool: str, count: int, **how: Any) -> Suggested:
        """Choose texts worth a label next; `how`: strategy, output, force, seed."""
        from tutelage.workflows.data.learning import suggest

        return suggest(self._ctx, pool, count, **how)

    def curve(self, *, model: bool = False, repeats: int = 5, seed: int = 7) -> CurveReport:
        """Measure what more rows would bring, on embeddings or by short training runs."""
        from tutelage.workflows.data.learning import curve

        return curve(self._ctx, model=model, repeats=repeats, seed=seed)

    def value(self, *, method: str = "knn") -> Valuation:
        """Return which training rows help and which hurt validation (knn or gradient)."""
        from tutelage.workflows.data.learning import value

        return value(self._ctx, method=method)

    def outliers(self, count: int = 20, *, loss: bool = False) -> dict[str, Any]:
        """Return the most unusual rows; `loss` asks the base model too."""
        from tutelage.workflows.data.quality import outliers

        return outliers(self._ctx, count, loss=loss)

    def label_errors(self, count: int = 20) -> dict[str, Any]:
        """Return the labels in doubt, most doubtful first."""
        from tutelage.workflows.data.quality import label_errors

        return label_errors(self._ctx, count)

    def fix_labels(self, labels: Mapping[str, str], *, author: str | None = None) -> dict[str, Any]:
        """Record corrected labels by row id or file:line; `curate` applies them."""
        from tutelage.workflows.data.quality import fix_labels

        return fix_labels(self._ctx, labels, author=author)

    def rank(self, count: int = 20, *, judge: bool = False, loss: bool = False) -> dict[str, Any]:
        """Return the best and the worst train rows with the parts of their scores."""
        from tutelage.workflows.data.quality import ranking

        return ranking(self._ctx, count, judge=judge, loss=loss)

    def select(self, count: int) -> dict[str, Any]:
        """Return what training on the best `count` rows would keep (data.quality.best does it)."""
        from tutelage.workflows.data.quality import selection

        return selection(self._ctx, count)
