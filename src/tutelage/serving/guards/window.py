"""The golden window: lengths, languages and labels of the rows a release was evaluated on.

It is what live traffic is compared with. It counts; it reads no files and judges nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.core.output import OutputFormat
from tutelage.data.filters.language import other_language

MOST_ROWS = 1000
OTHER = "(other)"  # a label that the golden rows do not hold, or an answer without one
_NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content
_SEEN = 0.01  # share of golden rows from which a language belongs there
_FAR = 3.0  # interquartile ranges beyond the quartiles: Tukey's far out


@dataclass(frozen=True)
class Side:
    """What one side of the rows is like: lengths in characters, sorted, and languages."""

    lengths: tuple[int, ...] = ()
    languages: Mapping[str, int] = field(default_factory=dict)  # rows by ISO code, where sure

    @property
    def main(self) -> str | None:
        """The language of most rows, or None where none could be told."""
        return max(self.languages, key=lambda code: self.languages[code], default=None)

    def known(self, language: str) -> bool:
        """Return whether at least one row in a hundred is in the language."""
        return self.languages.get(language, 0) >= _SEEN * sum(self.languages.values())

    def bounds(self) -> tuple[float, float]:
        """Return the least and greatest length in characters that is not far out.

        Three interquartile ranges beyond the quartiles of log2(1 + length), and never inside the
        rows' own range (Tukey, "Exploratory Data Analysis", 1977).
        """
        if not self.lengths:
            return 0.0, float("inf")
        low, high = (1.0 + _quantile(self.lengths, q) for q in (0.25, 0.75))
        reach = max(high / low, 2.0) ** _FAR  # at least an octave, for rows of one length
        return (
            min(low / reach - 1.0, float(self.lengths[0])),
            max(high * reach - 1.0, float(self.lengths[-1])),
        )


@dataclass(frozen=True)
class Window:
    """The golden rows in numbers. `labels` counts what the answers say; empty for free text."""

    request: Side = Side()
    answer: Side = Side()
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many golden rows there are."""
        return len(self.request.lengths)

    @classmethod
    def of(
        cls,
        requests: Sequence[str],
        answers: Sequence[str],
        output: OutputFormat,
        *,
        free: bool = True,
    ) -> Window:
        """Return the window of some texts; of more than 1,000 of a side an even thousand.

        Answers that are not `free` text, or have a field or labels, are in no language.
        """
        requests, answers = _thinned(requests), _thinned(answers)
        closed = bool(output.field or output.labels)
        labels = Counter(label_of(answer, output) for answer in answers) if closed else {}
        return cls(_side(requests), _side(answers, languages=free and not closed), dict(labels))

    def text(self) -> str:
        """Return the window as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, text: str) -> Window:
        """Return the window that `text` wrote; raise ValueError for anything else."""
        try:
            data = json.loads(text)
            return cls(_read_side(data["request"]), _read_side(data["answer"]), data["labels"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a golden window ({error})") from error


def label_of(answer: str, output: OutputFormat) -> str:
    """Return the label in an answer, or OTHER."""
    return output.parse(answer).label or OTHER


def language_of(text: str) -> str | None:
    """Return the language of a text by the best detector installed, or None when unsure."""
    return other_language(text, _NO_LANGUAGE)


def _thinned(texts: Sequence[str]) -> Sequence[str]:
    count = len(texts)
    if count <= MOST_ROWS:
        return texts
    return [texts[i * count // MOST_ROWS] for i in range(MOST_ROWS)]


def _side(texts: Sequence[str], *, languages: bool = True) -> Side:
    found = Counter(language_of(text) for text in texts) if languages else Counter()
    known = {code: count for code, count in found.items() if code is not None}
    return Side(tuple(sorted(map(len, texts))), known)


def _read_side(data: Mapping[str, Any]) -> Side:
    return Side(tuple(sorted(map(int, data["lengths"]))), dict(data["languages"]))


def _quantile(values: Sequence[int], q: float) -> float:
    """Return the quantile of sorted values, linear between neighbours."""
    place = q * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])
