"""A user behind a pseudonym: what redacted rows call them, and the vault without them."""

from __future__ import annotations

from tutelage.core.errors import TutelageError
from tutelage.feedback.privacy.traces import Traces
from tutelage.workflows.context import Context
from tutelage.workflows.data.privacy import opened, vault_path


def pseudonyms_of(ctx: Context, user: str) -> frozenset[str] | None:
    """Return what redacted rows call the user; None if the key that tells is not here."""
    if not vault_path(ctx).exists():
        return frozenset()
    try:
        with opened(ctx, keep=False) as pseudonyms:
            known = {entry.owner for entry in pseudonyms.vault.entries.values()}
            name = pseudonyms.group(user)
            now = {entry.owner for entry in pseudonyms.vault.entries.values()}
            return frozenset() if now - known else frozenset((name,))
    except TutelageError:
        return None


def forget_pseudonyms(ctx: Context, traces: Traces) -> None:
    """Delete the user's key from the vault; it is written anew."""
    if not traces.aliases:
        return
    with opened(ctx, keep=True) as pseudonyms:
        entries = pseudonyms.vault.entries
        for stem in [s for s, e in entries.items() if any(f.text == traces.user for f in e.forms)]:
            del entries[stem]
