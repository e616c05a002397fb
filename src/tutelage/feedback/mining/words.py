"""Why a text is wanted, in words for a person: made for the rows that were chosen alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from tutelage.data.linear import Vectors
from tutelage.feedback.mining.failure import Forms, failure_of
from tutelage.feedback.mining.known import Knowledge, Look
from tutelage.feedback.mining.mined import Reason
from tutelage.feedback.mining.panel import Split
from tutelage.feedback.mining.scan import Traffic, fetch
from tutelage.feedback.mining.strengths import WEIGHTS, Source, Strengths
from tutelage.feedback.signals import Declared
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow

_LONG = 80  # characters of a row or an answer that is quoted
_AT_ONCE = 500


class Explainer:
    """Words for chosen texts. `shown` maps a release's id to its name."""

    def __init__(
        self,
        store: Store,
        traffic: Traffic,
        strengths: Strengths,
        forms: Forms,
        knowledge: Knowledge | None,
    ) -> None:
        self._store, self._traffic, self._strengths = store, traffic, strengths
        self._forms, self._knowledge = forms, knowledge
        self.shown: Mapping[str, str] = {}
        self.live: Mapping[str, tuple[float, str]] = {}  # record -> (score, metric)
        self.judges: Mapping[str, Split] = {}
        self.declared: Mapping[str, Declared] = {}
        self.serving: Collection[str] = ()  # releases

    def reasons(self, texts: Sequence[int], vectors: Vectors) -> list[tuple[Reason, ...]]:
        """Return the reasons of each text, the weightiest first; `vectors` are theirs, (N, D)."""
        known = self._knowledge
        look = known.look(vectors) if known is not None else None
        causes = {
            (source, text): int(self._strengths.record[source][text])
            for text in texts
            for source, _ in self._strengths.reasons_of(text)
            if source in self._strengths.record
        }
        names = {number: self._traffic.ids[number] for number in causes.values() if number >= 0}
        rows = {row.id: row for row in fetch(self._store, sorted(set(names.values())))}
        signals = self._signals(list(rows))
        answers = self._answers(texts)
        found = []
        for place, text in enumerate(texts):
            reasons: dict[str, Reason] = {}
            for source, strength in self._strengths.reasons_of(text):
                row = rows.get(names.get(causes.get((source, text), -1), ""))
                said = signals.get(row.id, []) if row is not None else []
                words = self._words(source, row, said, answers[text], (look, place))
                words += self._of_whom(row) if words else ""
                kind = WEIGHTS[source][0]
                if words and kind in reasons:
                    both = f"{reasons[kind].words}; {words}"
                    reasons[kind] = Reason(kind, reasons[kind].strength, both)
                elif words:
                    reasons[kind] = Reason(kind, round(strength, 3), words)
            found.append(tuple(reasons.values()))
        return found

    def _of_whom(self, row: Any) -> str:
        if row is None or not self.serving or row.release in self.serving:
            return ""
        return f" (of {self.shown.get(row.release, row.release[:12])}, which serves no more)"

    def _words(
        self,
        source: Source,
        row: Any,
        said: Sequence[SignalRow],
        answers: Sequence[tuple[str, str]],
        look: tuple[Look | None, int],
    ) -> str:
        if source == "failed" and row is not None:
            return failure_of(row, self._forms.problem)[1]
        if source == "users" and row is not None:
            return _told(said, self.declared)
        if source == "live" and row is not None:
            score, metric = self.live[row.id]
            return f"live evaluation gave {metric} {score:.2g}"
        if source == "judges" and row is not None:
            return self.judges[row.id].words
        if source == "entropy" and row is not None:
            return f"the model wavered: {row.entropy:.2f} nats a token"
        if source == "releases":
            return self._releases(answers)
        if source == "varies":
            counts = Counter(answer for _, answer in answers).most_common(3)
            given = ", ".join(f"{_quoted(answer)} {count}×" for answer, count in counts)
            return f"the same text got different answers: {given}"
        return self._from_rows(source, answers, *look)

    def _from_rows(
        self, source: Source, answers: Sequence[tuple[str, str]], look: Look | None, place: int
    ) -> str:
        """Return what the dataset says against an answer."""
        known = self._knowledge
        if known is None or look is None:
            return ""
        if source == "novel":
            share = known.nearer_rows(float(look.cosine[place]))
            near = _quoted(known.texts[int(look.nearest[place])])
            return (
                f"unlike the dataset: its nearest row is {near}, and {share * 100:.0f} % of the "
                "rows have a nearer one than that"
            )
        if look.top[place] < 0:
            return ""
        top, second = (known.labels[int(side[place])] for side in (look.top, look.second))
        if source == "doubt":
            return (
                f"the dataset leaves it open: {top!r} {look.chance[place] * 100:.0f} %, "
                f"{second!r} {look.runner[place] * 100:.0f} %"
            )
        answer = answers[-1][1] if answers else ""
        return (
            f"the model said {_quoted(answer)}, the dataset's rows say {top!r} "
            f"({look.chance[place] * 100:.0f} %)"
        )

    def _releases(self, answers: Sequence[tuple[str, str]]) -> str:
        by_release: dict[str, Counter[str]] = defaultdict(Counter)
        for release, answer in answers:
            by_release[release][answer] += 1
        told = [
            f"{self.shown.get(release, release[:12])} says {_quoted(own.most_common(1)[0][0])}"
            for release, own in by_release.items()
        ]
        return "releases differ: " + ", ".join(told[:3])

    def _answers(self, texts: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
        """Return (release, answer) of every answered record of each text, oldest first."""
        traffic = self._traffic
        wanted = np.array(sorted(set(texts)), np.int32)
        own = np.flatnonzero(np.isin(np.frombuffer(traffic.text, np.int32), wanted))
        text_of = {traffic.ids[i]: int(traffic.text[i]) for i in own[: 50 * _AT_ONCE]}
        columns = (RecordRow.id, RecordRow.at, RecordRow.release, RecordRow.response,
                   RecordRow.status)  # fmt: skip
        rows = sorted(fetch(self._store, list(text_of), columns), key=lambda row: (row.at, row.id))
        found: dict[int, list[tuple[str, str]]] = {text: [] for text in texts}
        for row in rows:
            if row.status == 200 and row.response.strip():
                found[text_of[row.id]].append((row.release, self._forms.same_as(row.response)))
        return found

    def _signals(self, records: Sequence[str]) -> dict[str, list[SignalRow]]:
        found: dict[str, list[SignalRow]] = defaultdict(list)
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            query = select(SignalRow).where(SignalRow.record.in_(part)).order_by(SignalRow.at)
            with self._store.session() as session:
                for signal in session.scalars(query):
                    found[signal.record].append(signal)
        return found


def _told(signals: Sequence[SignalRow], declared: Mapping[str, Declared]) -> str:
    """Return what users did and said, the newest of each kind, in words."""
    newest = {signal.kind: signal.value["value"] for signal in signals}
    words = []
    for kind, value in newest.items():
        rule = declared.get(kind)
        if kind == "edit":
            words.append("corrected")
        elif kind == "comment":
            words.append(f"comment {_quoted(str(value))}")
        elif rule is not None and rule.direction:
            if value is True:
                words.append(kind)
            elif value is False:
                words.append(f"not {kind}")
            else:
                words.append(f"{kind} {value:g}" if isinstance(value, float) else f"{kind} {value}")
    return "users: " + ", ".join(words) if words else "users were not content"


def _quoted(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= _LONG else plain[: _LONG - 1] + "…")
