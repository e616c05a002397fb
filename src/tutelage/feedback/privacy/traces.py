"""What belongs to one user, and how it is recognised in a row, a JSON value or a text.

Ids of records, rows and label items are random or hashes, so a long one is recognised anywhere.
What is short, or a common word, counts only where a field says what it is. Texts of the user's
requests are recognised from a certain length on, if nobody else has them too.

Users and the people who work on a project have names of their own. Where both have the same one,
fields that say who worked on a row, such as `author`, are about the latter.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tutelage.core.example import Example
from tutelage.feedback.privacy.quotes import LONG_TEXT, Quotes

GONE: Any = object()  # what `prune` returns where nothing may stay
USER_FIELDS = frozenset(
    ("user", "userid", "enduser", "enduserid", "customer", "customerid", "group", "groupid",
     "groupkey", "metadatauser", "metadatauserid")
)  # fmt: skip
_ID_FIELDS = frozenset(
    ("record", "recordid", "responseid", "item", "id", "example", "exampleid", "source", "twin",
     "parents", "parent")
)  # fmt: skip
WORKER_FIELDS = frozenset(
    ("author", "authors", "annotator", "annotators", "by", "expert", "experts", "people", "person",
     "rater", "raters")
)  # fmt: skip
_LONG_ID, LONG_KEY = 16, 8  # characters from which on it is recognised anywhere
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Traces:
    """A user's key and what was found of them; ids are added while the search goes on."""

    user: str
    records: set[str] = field(default_factory=set)
    examples: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    short: set[str] = field(default_factory=set)  # texts too common to be recognised by
    inputs: set[str] = field(default_factory=set)  # all turns of a request or row, as embedded
    keyed: str = ""  # the name that the log has for the user (data/split.py, private_name)
    aliases: frozenset[str] = frozenset()  # the user's pseudonyms in redacted rows
    fields: frozenset[str] = USER_FIELDS  # folded names of fields that say whose a row is
    namesake: bool = False  # an expert, account or API key has the user's key as its name
    workers: frozenset[str] = WORKER_FIELDS  # folded names of fields that say who worked on a row

    @cached_property
    def names(self) -> frozenset[str]:
        """The user's key as it is kept: as sent, hashed, or a pseudonym."""
        return self.aliases | self._hashed | {self.user}

    @cached_property
    def _hashed(self) -> frozenset[str]:
        """The key's hashes; logs of earlier versions have the plain SHA-256."""
        plain = hashlib.sha256(self.user.encode()).hexdigest()
        return frozenset((plain, self.keyed) if self.keyed else (plain,))

    @property
    def ids(self) -> set[str]:
        """Every id."""
        return self.records | self.examples | self.items

    def add_texts(self, texts: Iterable[str]) -> None:
        """Remember texts of the user by which copies are recognised, if they are long enough."""
        for text in texts:
            known = len(text.strip()) >= LONG_TEXT and text not in self.short
            (self.texts if known else self.short).add(text)
            if known:
                self._quotes.add(text)

    def leave(self, texts: Iterable[str]) -> None:
        """Recognise nobody by these texts: others have them too, such as an answer of many."""
        for text in texts if self.texts else ():
            if common := self._quotes.same(text):
                self._quotes.drop(text)
                self.texts -= common
                self.short |= common

    def is_theirs(self, row: Example) -> bool:
        """Return whether a row of a data set came from the user, or was made of such a row.

        One that names no owner is theirs if they asked the same.
        """
        sources = {row.origin.source, str(row.meta.get("record", "")), *row.origin.parents}
        told = row.meta.get("annotated")
        item = str(told.get("item", "")) if isinstance(told, dict) else ""
        return (
            row.id in self.examples
            or not sources.isdisjoint(self.records)
            or not self.examples.isdisjoint(row.origin.parents)
            or item in self.items
            or row.group in self.names
            or self._wrote(row)
            or any(
                fold(name) in self.fields and str(value) in self.names
                for name, value in row.meta.items()
            )
            or (row.group is None and self._asked(row))
        )

    def _wrote(self, row: Example) -> bool:
        known = len(self.user) >= LONG_KEY and not self.namesake
        return known and row.origin.author in self.names

    def _asked(self, row: Example) -> bool:
        asked = (turn.content for turn in row.messages if turn.role == "user")
        return any(self._quotes.same(text) for text in asked)

    def in_text(self, text: str, *, named: bool = True) -> bool:
        """Return whether a text quotes what is the user's or, if `named`, says their name."""
        long = self._long
        if any(token in long for token in _TOKEN.findall(text)):
            return True
        if named and len(self.user) >= LONG_KEY and self._key.search(text):
            return True
        return any(part in text for part in self.aliases) or self._quotes.inside(text)

    def in_value(self, name: str, value: str) -> bool:
        """Return whether the value of the field `name` is, names or quotes what is the user's."""
        folded = fold(name)
        if folded in self.fields and value in self.names:
            return True
        if folded in _ID_FIELDS and value in self.ids:
            return True
        another = self.namesake and folded in self.workers
        return self.in_text(value, named=not another)

    def prune(self, value: Any, name: str = "") -> Any:
        """Return JSON without what is the user's, or GONE if the value itself is.

        An object inside another, or in a list, that names it goes as a whole; of the outermost
        the field alone. The same object comes back where nothing is found.
        """
        if isinstance(value, str):
            return GONE if self.in_value(name, value) else value
        if isinstance(value, list):
            kept = [self.prune(part, name) for part in value]
            left = [
                part
                for part, was in zip(kept, value, strict=True)
                if part is not GONE and not (isinstance(was, dict) and self._names_it(was))
            ]
            changed = len(left) != len(value) or any(
                a is not b for a, b in zip(left, value, strict=True)
            )
            return left if changed else value
        if isinstance(value, dict):
            pruned = {
                key: self.prune(part, key)
                for key, part in value.items()
                if not self._is_key(key) and not (isinstance(part, dict) and self._names_it(part))
            }
            if len(pruned) == len(value) and all(pruned[key] is value[key] for key in value):
                return value
            return {key: part for key, part in pruned.items() if part is not GONE}
        return value

    def holds(self, value: Any) -> bool:
        """Return whether anything in a JSON value is the user's."""
        return self.prune(value) is not value

    def _names_it(self, value: Mapping[str, Any]) -> bool:
        return any(
            self._is_key(key) or (isinstance(part, str) and self.in_value(key, part))
            for key, part in value.items()
        )

    def _is_key(self, key: str) -> bool:
        return key in self._long

    @cached_property
    def _key(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w.@-]){re.escape(self.user)}(?![\w@-])")

    @property
    def _long(self) -> set[str]:
        if self._made != (len(self.records), len(self.examples), len(self.items)):
            self._made = (len(self.records), len(self.examples), len(self.items))
            self._ids = {name for name in self.ids if len(name) >= _LONG_ID} | self._hashed
        return self._ids

    _quotes: Quotes = field(default_factory=Quotes)  # of `texts`
    _made: tuple[int, int, int] = (-1, -1, -1)
    _ids: set[str] = field(default_factory=set)


def fold(name: str) -> str:
    """Return a field's name in lower case, without _ - and spaces."""
    return "".join(char for char in str(name).lower() if char.isalnum())


def keyed(key: bytes, kind: str, value: str) -> str:
    """Return the keyed hash by which a user or a record is recognised later (HMAC-SHA256)."""
    return hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()
