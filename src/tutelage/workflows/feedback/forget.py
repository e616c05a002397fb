"""Forget a user: everything that is theirs, wherever it lies, and what was trained on it by name.

The order is such that a killed run is taken up by the next one: what is to go is written down
first, files follow, then the store, and at the end nothing is left of the list but keyed hashes.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError, NotFound
from tutelage.core.events import Event
from tutelage.core.example import normalise
from tutelage.core.lock import sole
from tutelage.core.workspace import atomic_write
from tutelage.data.readers.files import find_files
from tutelage.data.split import load_split_key, private_name
from tutelage.data.version import ERASED, ERASED_NOTE, read_manifest
from tutelage.feedback.privacy import tables
from tutelage.feedback.privacy.files import Swept, files_under, sweep
from tutelage.feedback.privacy.late import sweep_late
from tutelage.feedback.privacy.traces import USER_FIELDS, Traces, fold, keyed
from tutelage.inference.embed_cache import forget_texts
from tutelage.serving.records.request_log import RequestLog
from tutelage.store.privacy import ErasureRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_publish import published_files
from tutelage.workflows.feedback.drift import forget_words
from tutelage.workflows.feedback.forget_pseudonyms import forget_pseudonyms, pseudonyms_of
from tutelage.workflows.feedback.forget_versions import (
    Held,
    find_held,
    replace_version,
    trained_on,
    versions_on_disk,
)

_STAGE = "forget"
_CUTS = (2_000, 4_000)  # characters of a text that mining and drift embed
_SKIPPED = ("split.key", "serving.json", ".gitignore")


@dataclass
class Forgotten:
    """What was found of a user, and what was done about it.

    `remains` names what has to be done by hand; `models` what was trained on their rows.
    """

    user: str  # keyed hash: the report does not repeat the name
    store: dict[str, int] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    vectors: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    remains: list[str] = field(default_factory=list)
    id: str = ""
    dry_run: bool = False

    @property
    def empty(self) -> bool:
        """Whether there was nothing."""
        return not (any(self.store.values()) or self.versions or self.files or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return asdict(self)


def look_up(ctx: Context, user: str) -> Forgotten:
    """Return what the project holds of a user, and change nothing."""
    traces = _traces(ctx, user)
    held = find_held(ctx, traces)
    swept = _sweep(ctx, traces, dry_run=True)
    return Forgotten(
        keyed(load_split_key(ctx.workspace), "user", user),
        tables.count(ctx.store, traces),
        [_version(one, None) for one in held],
        swept.rows,
        swept.removed,
        0,
        trained_on(ctx, held),
        swept.remains,
        dry_run=True,
    )


def forget(ctx: Context, user: str, *, reason: str = "") -> Forgotten:
    """Erase a user from the project; return what was done. Interrupted, call it again.

    `user` is the key by which requests and logs name them. Raises DataError if nothing is known,
    Conflict while another one is forgotten.
    """
    taken = Conflict(
        "another command is forgetting a user of this project",
        where=str(ctx.workspace.root),
        fix="Wait until it has finished and run this one again",
    )
    with sole(ctx.workspace.home / "forget.lock", taken):
        return _forget(ctx, user, reason)


def _forget(ctx: Context, user: str, reason: str) -> Forgotten:
    key = load_split_key(ctx.workspace)
    _take_over(ctx)
    traces = _traces(ctx, user)
    begun = _begun(ctx, keyed(key, "user", user))
    if begun is not None:
        traces.records |= set(begun.work.get("records", ()))
        traces.examples |= set(begun.work.get("examples", ()))
        traces.items |= set(begun.work.get("items", ()))
        traces.short |= set(begun.work.get("short", ()))
        traces.add_texts(begun.work.get("texts", ()))
    _tell(ctx, "looking for their rows")
    held = find_held(ctx, traces)
    report = Forgotten(keyed(key, "user", user), models=trained_on(ctx, held))
    name = begun.id if begun is not None else secrets.token_hex(8)
    if begun is None:
        _begin(ctx, name, key, traces, reason, report.models, [_version(h, None) for h in held])
    else:
        report.models = begun.work.get("models") or report.models
        report.versions = _replaced_before(ctx, begun, held)
    report.id = name
    for one in held:
        _tell(ctx, f"a version without {one.total} rows takes the place of {one.hash[:12]}")
        report.versions.append(_version(one, replace_version(ctx, one, traces)))
    swept = _sweep(ctx, traces, dry_run=False)
    report.files, report.removed, report.remains = swept.rows, swept.removed, swept.remains
    report.vectors = forget_texts(ctx.workspace.home / "embeddings", _as_embedded(traces))
    _tell(ctx, "the store")
    report.store = tables.erase(ctx.store, traces, name, key)
    if any(report.store.values()):
        forget_words(ctx)  # topics of drift reports may be in their words
    forget_pseudonyms(ctx, traces)
    _finish(ctx, name, report)
    sweep_late(ctx.store, key)
    if not tables.shrink(ctx.store):
        report.remains.append(
            "freed pages of the store's log (it is in use; run the command again when it is not)"
        )
    if report.empty and begun is None:
        _undo_empty(ctx, name)
        left = "; ".join(report.remains)
        raise NotFound(
            f"nothing is known of this user{f' but what is left for you: {left}' if left else ''}",
            where=str(ctx.workspace.root),
            fix="Give the key as requests send it in `user`, or as the logs' user column has it",
        )
    return report


def erasures(ctx: Context) -> list[dict[str, Any]]:
    """Return who was forgotten so far, newest first: by keyed hash, with the report."""
    with ctx.store.session() as session:
        rows = session.scalars(select(ErasureRow).order_by(ErasureRow.at.desc()))
        return [
            {
                "id": row.id,
                "user": row.user,
                "state": row.state,
                "reason": row.reason,
                "at": row.at.isoformat(),
                "done_at": row.done_at.isoformat() if row.done_at else None,
                "report": row.report,
            }
            for row in rows
        ]


def _traces(ctx: Context, user: str) -> Traces:
    """Return the user's records and label items, found by their key."""
    if not user.strip():
        raise DataError("the user's key is empty", fix="Give it as requests send it in `user`")
    data = ctx.config.data
    own = {fold(name) for name in (data.splits.group, data.columns.group) if name}
    traces = Traces(
        user,
        keyed=private_name(load_split_key(ctx.workspace), user),
        aliases=pseudonyms_of(ctx, user) or frozenset(),
        fields=USER_FIELDS | own,
        namesake=tables.works_here(ctx.store, user),
    )
    tables.find_records(ctx.store, traces)
    output = ctx.config.output.format()
    if output.labels:
        traces.leave([text for text in traces.texts if output.parse(text).label is not None])
    return traces


def _take_over(ctx: Context) -> None:
    """Bring what killed gateways wrote ahead into the store, where it is found."""
    ahead = ctx.workspace.logs / "ahead"
    if any(ahead.glob("*.ahead")):
        log = RequestLog(ctx.store, ahead=ahead)
        log.start()
        log.flush()
        log.close()


def _begun(ctx: Context, user: str) -> ErasureRow | None:
    with ctx.store.session() as session:
        query = select(ErasureRow).where(ErasureRow.user == user, ErasureRow.state == "open")
        return session.scalars(query).first()


def _begin(
    ctx: Context,
    name: str,
    key: bytes,
    traces: Traces,
    reason: str,
    models: list[dict[str, Any]],
    versions: list[dict[str, Any]],
) -> None:
    work = {
        "records": sorted(traces.records),
        "examples": sorted(traces.examples),
        "items": sorted(traces.items),
        "texts": sorted(traces.texts),
        "short": sorted(traces.short),
        "models": models,
        "versions": versions,
    }
    with ctx.store.begin() as session:
        session.add(
            ErasureRow(
                id=name,
                user=keyed(key, "user", traces.user),
                hashed=keyed(key, "user", traces.keyed),
                work=work,
                report={},
                reason=reason[:240],
            )
        )


def _finish(ctx: Context, name: str, report: Forgotten) -> None:
    with ctx.store.begin() as session:
        tables.overwrite(ctx.store, session)
        row = session.get_one(ErasureRow, name)
        row.state, row.done_at, row.work = "done", utc_now(), {}
        row.report = report.as_dict()


def _undo_empty(ctx: Context, name: str) -> None:
    with ctx.store.begin() as session:
        session.delete(session.get_one(ErasureRow, name))


def _sweep(ctx: Context, traces: Traces, *, dry_run: bool) -> Swept:
    """Look through the project's own files, then its sources; of those only rows are taken."""
    root, home = ctx.workspace.root, ctx.workspace.home
    own = (
        path
        for path in files_under(home, versions_on_disk(ctx))
        if path.name not in _SKIPPED and not path.name.startswith("store.db")
    )
    done = sweep(own, traces, root, remove_texts=True, dry_run=dry_run)
    if traces.ids:
        _remove_pages(ctx, done, dry_run)
    try:
        sources = find_files(root, ctx.config.data.sources, [], ctx.config.task)
    except DataError:
        sources = []
    sources += [path for path in published_files(ctx) if path not in sources]
    taken = sweep(sources, traces, root, remove_texts=False, dry_run=dry_run)
    done.rows |= taken.rows
    done.remains += taken.remains
    done.remains += _other_files(ctx, traces, sources)
    if pseudonyms_of(ctx, traces.user) is None:
        done.remains.append("rows under a pseudonym, if any: the key of the pseudonyms is not here")
    if traces.namesake:
        done.remains.append(
            "what an expert, account or API key of the same name did here: it stays as theirs"
        )
    if others := tables.mentions(ctx.store, traces):
        done.remains.append(f"{others:,} records of others that quote the user's key")
    if not dry_run:
        _mark_evaluations(ctx, done)
    return done


def _other_files(ctx: Context, traces: Traces, sources: list[Path]) -> list[str]:
    """Name the files beside the sources that hold something of the user's, such as exports."""
    root = ctx.workspace.root
    beside = [*root.iterdir(), *files_under(root / "data")]
    ours = {ctx.workspace.config_path, *sources}
    paths = [path for path in beside if path.is_file() and path not in ours]
    found = sweep(paths, traces, root, remove_texts=False, dry_run=True)
    told = [f"{name} ({rows:,} rows, in a file of yours)" for name, rows in found.rows.items()]
    return told + found.remains


def _as_embedded(traces: Traces) -> list[str]:
    """Return the user's texts in every form that is embedded: whole, trimmed, cut, normalised."""
    texts = traces.texts | traces.short | traces.inputs
    forms = ({text, text.strip(), normalise(text), *(text[:n] for n in _CUTS)} for text in texts)
    return sorted(set().union(*forms))


def _remove_pages(ctx: Context, done: Swept, dry_run: bool) -> None:
    """Remove the pages about rows: they quote the beginnings of texts, and can be made again."""
    for folder in (ctx.workspace.home / "reports", ctx.workspace.artifacts / "reports"):
        for path in sorted(folder.glob("*.html")):
            name = path.relative_to(ctx.workspace.root).as_posix()
            if name not in done.removed:
                done.removed.append(name)
            if not dry_run:
                path.unlink(missing_ok=True)


def _mark_evaluations(ctx: Context, done: Swept) -> None:
    """Leave a note where answers were taken out: their hash is no longer the folder's name."""
    folders = {Path(name).parent for name in (*done.rows, *done.removed)}
    for folder in folders:
        path = ctx.workspace.root / folder
        if path.is_relative_to(ctx.workspace.artifacts / "evaluations") and path.is_dir():
            note = '{"why": "answers to rows of a forgotten user were taken out"}\n'
            atomic_write(path / ERASED_NOTE, note.encode())


def _version(held: Held, new: str | None) -> dict[str, Any]:
    return {
        "kind": held.folder.parent.name,
        "hash": held.hash[:12],
        "rows": held.rows,
        "replaced_by": new[:12] if new else None,
    }


def _replaced_before(ctx: Context, begun: ErasureRow, held: list[Held]) -> list[dict[str, Any]]:
    """Return the versions that an interrupted run has replaced."""
    still = {one.hash[:12] for one in held}
    found = []
    for one in begun.work.get("versions", ()):
        folder = ctx.workspace.artifacts / one["kind"] / one["hash"]
        if one["hash"] not in still and folder.is_dir():
            stone = read_manifest(folder).get(ERASED) or {}
            found.append({**one, "replaced_by": str(stone.get("replaced_by", ""))[:12] or None})
    return found


def _tell(ctx: Context, text: str) -> None:
    ctx.emit(Event(_STAGE, "note", text))


class PrivacyDesk:
    """`project.privacy`: what is held of a user, forgetting them, and who was forgotten."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def look_up(self, user: str) -> Forgotten:
        """Return what the project holds of a user."""
        return look_up(self._ctx, user)

    def forget(self, user: str, *, reason: str = "") -> Forgotten:
        """Erase a user; the result says what was done, what remains, and which models know."""
        return forget(self._ctx, user, reason=reason)

    def erasures(self) -> list[dict[str, Any]]:
        """Return who was forgotten so far, by keyed hash."""
        return erasures(self._ctx)
