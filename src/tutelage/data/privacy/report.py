"""The part of a dataset's report about identifiers: how many of each kind, and what was done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core import html
from tutelage.data.privacy.kinds import KINDS

_LEADS = {
    "flag": "They are still in the rows. Set data.privacy.mode to redact to replace them by "
    "pseudonyms, or data.privacy.kinds to say which of them do not matter. Examples are masked.",
    "redact": "Each was replaced by a pseudonym before anything was written. Only the key, which "
    "is not part of this data set, brings them back.",
}
_NOTE = (
    "Found by rules: cues, forms and checksums. Rules miss some: a rare name without a title, a "
    "nickname, a story that only one person can have. Let a person read a sample before rows leave "
    "the house."
)


def section(summary: Mapping[str, Any] | None) -> list[html.Html]:
    """Return the cards for a summary (Summary.as_dict()); none if nobody looked."""
    if not summary or summary["mode"] == "off":
        return []
    mode = str(summary["mode"])
    kinds: Mapping[str, Mapping[str, int]] = summary["kinds"]
    if not kinds:
        text = f"None was found in {summary['of']:,} rows. {_NOTE}"
        return [html.section("Personal and health identifiers", html.paragraph(text))]
    ordered = sorted(kinds.items(), key=lambda item: -item[1]["found"])
    tone: html.Tone = "warn" if mode == "flag" else "good"
    rows = [
        (
            KINDS[kind].title,
            entry["rows"],
            entry["found"],
            html.badge(tone, "still there" if mode == "flag" else "replaced"),
            html.code(KINDS[kind].finding if mode == "flag" else "D7-X01"),
        )
        for kind, entry in ordered
    ]
    examples = [
        (KINDS[example["kind"]].title, example["where"], example["text"])
        for example in summary["examples"]
    ]
    share = f"{summary['rows']:,} of {summary['of']:,} rows hold identifiers. {_LEADS[mode]}"
    return [
        html.section(
            "Personal and health identifiers",
            html.table(("kind", "rows", "found", "now", "id"), rows),
            html.details("Examples", html.table(("kind", "where", "text"), examples)),
            html.paragraph(_NOTE),
            lead=share,
        )
    ]
