"""Put pseudonyms in place of identifiers, and the identifiers back in place of pseudonyms.

A pseudonym is `[NAME_3f2a9c41]`: the kind, and the start of an HMAC-SHA256 of the value's normal
form under the project's key. So equal values are equal in a project and nowhere else. `.2` marks
another spelling of the same value. What Safe Harbor allows may follow: the year of a date (or the
date shifted by the group's own number of days), the first three digits of a ZIP code, `90+`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from tutelage.data.privacy.detect import Detector, detect, replace
from tutelage.data.privacy.kinds import KINDS, TAGS, Span
from tutelage.data.privacy.places import SMALL_ZIPS
from tutelage.data.privacy.vault import Entry, Form, Vault

Dates = Literal["year", "shift"]
Inside = Literal["text", "json", "csv"]

_SIZES = (8, 16, 32)  # hex digits of a tag; longer only where two values would share one
_SHIFT_DAYS = 365
TOKEN = re.compile(
    rf"\[(?P<stem>(?:{'|'.join(TAGS)})_[0-9a-f]{{8,32}})(?:\.(?P<form>[1-9]\d{{0,5}}))?"
    r"(?: (?:\d{3}|\d{4}|\d{4}-\d\d-\d\d|90\+))?\]"
)
_MARK = "\ufffc"  # stands for a pseudonym while the rest is searched
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Redacted:
    """A text after redaction, and what was replaced in it (positions in the text before)."""

    text: str
    spans: list[Span]


class Pseudonyms:
    """Replaces and restores. `escape`: pseudonyms that a text holds already become text again
    when it is restored; otherwise the project's own are left as they are.
    """

    def __init__(
        self,
        vault: Vault,
        kinds: frozenset[str] = frozenset(KINDS),
        dates: Dates = "year",
        *,
        escape: bool = False,
        find: Detector = detect,
    ) -> None:
        self.vault = vault
        self.kinds = kinds
        self.dates = dates
        self._escape = escape
        self._find = find

    def redact(self, text: str, field: str | None = None, group: str = "") -> Redacted:
        """Return `text` with pseudonyms. `field`: the key it stands under; `group`: whose it is."""
        spans = self.spans(text, field)
        done = replace(text, spans, lambda s: self.token(s, Form(text[s.start : s.end]), group))
        return Redacted(done, [span for span in spans if span.kind != "text"])

    def spans(self, text: str, field: str | None = None) -> list[Span]:
        """Return what must be replaced: identifiers, and with `escape` known pseudonyms."""
        if "[" not in text or not (tokens := list(TOKEN.finditer(text))):
            return self._find(text, self.kinds, field)
        known = [token for token in tokens if token["stem"] in self.vault.entries]
        masked = text
        for token in known:
            start, end = token.span()
            masked = masked[:start] + _MARK * (end - start) + masked[end:]
        found = self._find(masked, self.kinds, None if known else field)
        spans = [part for span in found for part in _outside(span, masked)]
        taken = {i for span in spans for i in range(span.start, span.end)}
        self.vault.reserved |= {
            token["stem"] for token in tokens
            if token not in known and taken.isdisjoint(range(*token.span()))
        }  # fmt: skip
        if self._escape:
            spans += [Span(*t.span(), "text", 1.0, "it reads like a pseudonym") for t in known]
        return sorted(spans, key=lambda span: span.start)

    def token(self, span: Span, form: Form, group: str = "") -> str:
        """Return the pseudonym for one written form of an identifier."""
        word = _word(span)
        value = span.value or _normal(form.text)
        hint = ""
        if word == "DATE":
            shifted = self._shifted(span.value, group) if self.dates == "shift" else ""
            hint = shifted or span.value[:4]
            value = f"{value}\0{group}" if shifted else value
        elif word == "AGE":
            hint = "90+"
        elif word == "PLACE" and re.fullmatch(r"\d{5}(?:-\d{4})?", span.value):
            hint = "000" if span.value[:3] in SMALL_ZIPS else span.value[:3]
        stem, entry = self._entry(word, value)
        if form not in entry.forms:
            entry.forms.append(form)
        place = entry.forms.index(form)
        return f"[{stem}{f'.{place + 1}' if place else ''}{f' {hint}' if hint else ''}]"

    def group(self, value: str) -> str:
        """Return the pseudonym of a row's group (a patient, a customer)."""
        if (token := TOKEN.fullmatch(value)) and token["stem"] in self.vault.entries:
            return value
        return self.token(Span(0, len(value), "group", 1.0, "a group", value), Form(value))

    def restore(self, text: str, inside: Inside = "text") -> str:
        """Return `text` with the identifiers back; pseudonyms of other projects stay."""
        if "[" not in text:
            return text
        return TOKEN.sub(lambda token: self._original(token, inside), text)

    def form_of(self, token: str) -> Form | None:
        """Return what stands behind a pseudonym, or None if it is not this project's."""
        match = TOKEN.fullmatch(token)
        entry = self.vault.entries.get(match["stem"]) if match else None
        if match is None or entry is None:
            return None
        place = int(match["form"] or 1) - 1
        return entry.forms[place] if place < len(entry.forms) else None

    def count(self, text: str) -> tuple[int, int]:
        """Return how many pseudonyms of this project a text holds, and how many of others."""
        tokens = [token[0] for token in TOKEN.finditer(text)]
        known = sum(self.form_of(token) is not None for token in tokens)
        return known, len(tokens) - known

    def shift_days(self, group: str) -> int:
        """Return how many days the dates of a group move back: 1 to 365, fixed by the key."""
        digest = self._digest("shift", group)
        return int(digest[:8], 16) % _SHIFT_DAYS + 1

    def _original(self, token: re.Match[str], inside: Inside) -> str:
        form = self.form_of(token[0])
        if form is None:
            return token[0]
        if inside == "json":
            return form.raw if form.raw is not None else json_inside(form.text)
        return form.text.replace('"', '""') if inside == "csv" else form.text

    def _entry(self, word: str, value: str) -> tuple[str, Entry]:
        digest = self._digest(word, value)
        for size in _SIZES:
            stem = f"{word}_{digest[:size]}"
            if stem in self.vault.reserved:
                continue
            entry = self.vault.entries.setdefault(stem, Entry(digest))
            if entry.owner == digest:
                return stem, entry
        raise RuntimeError("three tags of one value are taken")

    def _digest(self, word: str, value: str) -> str:
        message = f"{word}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.vault.tag_key, message, hashlib.sha256).hex()[:32]

    def _shifted(self, value: str, group: str) -> str:
        if len(value) != 10:
            return ""
        try:
            moved = date.fromisoformat(value) - timedelta(days=self.shift_days(group))
        except (ValueError, OverflowError):
            return ""
        return moved.isoformat() if moved.year >= 1000 else ""


def json_inside(text: str) -> str:
    """Return `text` as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _word(span: Span) -> str:
    if span.kind in KINDS:
        return "AGE" if span.value.startswith("age:") else KINDS[span.kind].tag
    return {"text": "TEXT", "group": "GROUP"}[span.kind]


def _normal(text: str) -> str:
    return _SPACE.sub(" ", text).strip(" .,;:").casefold()


def _outside(span: Span, masked: str) -> Iterable[Span]:
    """Yield the parts of a span that are not pseudonyms already."""
    said = masked[span.start : span.end]
    if _MARK not in said:
        yield span
        return
    for part in re.finditer(rf"[^{_MARK}]+", said):
        if any(char.isalnum() for char in part[0]):
            start = span.start + part.start()
            yield Span(start, start + len(part[0]), span.kind, span.confidence, span.reason)
