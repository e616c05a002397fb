"""Hide identifiers for good: in rows that can't be read, in their reasons, and in findings.

What is hidden here is not kept in the vault: the user's own file still has it, at the line named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tutelage.data.findings import Finding, catalogue
from tutelage.data.privacy.detect import Detector, detect, redact_text
from tutelage.data.privacy.files import redact_file_text
from tutelage.data.privacy.kinds import KINDS, Span
from tutelage.data.privacy.vault import Form
from tutelage.data.readers.base import Rejected

_SEARCHED = 200_000  # characters of a row that are searched before its reason is told
_LOOKED_AT = 4000  # characters of a row whose beginning is kept
_EDGE = 200  # an identifier is not longer than this
WITHHELD = "the details are withheld, because the row holds identifiers"


class Masks:
    """Writes `[NAME]`, `[DATE]` … over identifiers. `always`: fields that are hidden whole."""

    def __init__(
        self,
        kinds: frozenset[str] = frozenset(KINDS),
        always: Sequence[str] = (),
        find: Detector = detect,
    ) -> None:
        self.kinds = kinds
        self._always = frozenset(always)
        self._find = find

    def spans(self, text: str, field: str | None = None) -> list[Span]:
        """Return what is hidden in a text."""
        if field in self._always and text.strip():
            return [Span(0, len(text), "other", 1.0, "its field says whose the row is")]
        return self._find(text, self.kinds, field)

    def token(self, span: Span, form: Form, group: str = "") -> str:
        """Return the word for the kind."""
        return f"[{KINDS[span.kind].tag}]"

    def mask(self, text: str) -> str:
        """Return a text, or the raw text of a row, without its identifiers."""
        suffix = ".jsonl" if text.lstrip()[:1] in ("{", "[") else ".txt"
        return redact_text(redact_file_text(text, suffix, self).text, self.kinds)

    def reject(self, item: Rejected) -> Rejected:
        """Return a row that can't be used as it may be kept and told.

        A reason quotes the row, perhaps half an identifier: where the row holds any, the
        catalogue's words stand in its place.
        """
        whole = item.whole or item.raw
        raw, why = self._beginning(whole), item.reason
        holds = len(whole) > _SEARCHED or self.mask(whole) != whole
        if holds or self.mask(why) != why:
            what = catalogue()[item.finding_id].what
            why = f"{what[0].lower()}{what[1:]} ({WITHHELD})"
        return replace(item, raw=raw[: len(item.raw)] if len(item.raw) > 1000 else raw, reason=why)

    def _beginning(self, whole: str) -> str:
        """Return the masked beginning of a long text, without what its end may have cut in two."""
        if len(whole) <= _LOOKED_AT:
            return self.mask(whole)
        return self.mask(whole[:_LOOKED_AT])[:-_EDGE]


def hidden_findings(found: Sequence[Finding], renamed: Mapping[str, str]) -> list[Finding]:
    """Return findings as they may be told after redaction.

    `renamed` gives the new ids of rows that were changed. The old id is a hash of the
    identifiers, and the detail may quote them: neither stays.
    """
    return [
        replace(item, example=renamed[item.example], detail=WITHHELD)
        if item.example in renamed
        else item
        for item in found
    ]
