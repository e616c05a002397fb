"""Curation's step: flagged without a quote, replaced everywhere, told without the identifier."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.findings import Finding, catalogue
from tutelage.data.privacy import report
from tutelage.data.privacy.kinds import KINDS
from tutelage.data.privacy.masks import WITHHELD, Masks, hidden_findings
from tutelage.data.privacy.presidio import PresidioDetector
from tutelage.data.privacy.pseudonyms import Pseudonyms
from tutelage.data.privacy.step import PrivacyStep
from tutelage.data.privacy.vault import Vault
from tutelage.data.readers.base import Rejected

KEY = bytes(range(32))
SECRETS = ("Featherstone", "48219934", "512-44-9812", "1961", "555-0142", "P-771")


def row(text: str, answer: str = "warm", **more: Any) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, origin=Origin(source="rows.jsonl:1"), **more)


def redacting(vault: Vault, output: OutputFormat | None = None, **options: Any) -> PrivacyStep:
    @contextlib.contextmanager
    def opened() -> Iterator[Pseudonyms]:
        yield Pseudonyms(vault, **options)

    return PrivacyStep("redact", output=output, opened=opened)


def test_flags_say_kind_place_and_reason_and_never_the_identifier() -> None:
    rows = [
        row("My name is Margaret Featherstone.", meta={"mrn": 48219934, "note": "512-44-9812"}),
        row("What is the fee?"),
    ]
    step = PrivacyStep("flag")
    result = step.run(rows)
    assert result.kept == rows
    assert [f.id for f in result.findings] == ["D7-A01", "D7-H01", "D7-G01"]
    assert result.findings[0].detail == "turn 1 (user): the text says that it is a name"
    assert result.findings[1].detail.startswith("field 'mrn'")
    told = json.dumps([f.detail for f in result.findings]) + json.dumps(step.summary.as_dict())
    assert not [secret for secret in SECRETS if secret in told]
    assert step.summary.rows == 1
    assert step.summary.kinds["name"] == {"rows": 1, "found": 1}


def test_every_text_of_a_row_is_replaced_and_the_key_brings_it_back() -> None:
    vault = Vault(KEY)
    before = Example(
        messages=(
            Message(role="user", content="Call +1 (555) 555-0142, MRN 48219934", name="Dr. Zola"),
            Message(role="assistant", content='{"who": "Dr. Zola", "ssn": 512449812}'),
        ),
        group="P-771",
        time="1961-03-14T10:00:00",
        meta={"patient_name": "Zola", "list": ["512-44-9812"], "deep": {"dob": "03/14/1961"}},
        origin=Origin(source="rows.jsonl:1"),
    )
    step = redacting(vault)
    (after,) = step.run([before]).kept
    text = after.model_dump_json()
    assert not [s for s in ("Zola", "48219934", "512", "03/14", "0142", "P-771") if s in text]
    assert after.time == "1961-01-01"
    assert json.loads(after.messages[1].content)["who"].startswith("Dr. [NAME_")
    assert after.origin.parents == ()  # the old id is a hash of what must not be known
    assert step.renamed == {before.id: after.id}
    tool = Pseudonyms(vault)
    assert tool.restore(after.messages[0].content) == before.messages[0].content
    assert tool.restore(after.group or "") == "P-771"


def test_equal_rows_stay_equal_and_a_second_run_changes_nothing() -> None:
    vault = Vault(KEY)
    step = redacting(vault)
    one, two, other = step.run(
        [row("I am Dr. Kumar."), row("I am Dr. Kumar."), row("I am Dr. Zola.")]
    ).kept
    assert one.id == two.id != other.id
    assert step.run([one]).kept[0] is one
    assert step.renamed == {}


def test_labels_of_a_list_stay_and_free_ones_follow_their_answer() -> None:
    closed = OutputFormat("who", ("Dr. Kumar", "nobody"))
    before = row("Who is it?", closed.render("Dr. Kumar"), label="Dr. Kumar")
    assert redacting(Vault(KEY), closed).run([before]).kept[0] is before
    free = OutputFormat("who")
    before = row("It was Dr. Kumar.", free.render("Dr. Kumar"), label="Dr. Kumar")
    (after,) = redacting(Vault(KEY), free).run([before]).kept
    assert after.label == free.parse(after.answer or "").label
    assert "Kumar" not in after.model_dump_json()
    assert after.label is not None and after.label.split(" ")[-1] in after.input_text


def test_shifted_times_keep_their_order_within_a_group() -> None:
    rows = [row("a", group="x", time=f"2020-05-{day:02d}") for day in (3, 1, 9)]
    kept = redacting(Vault(KEY), dates="shift").run(rows).kept
    assert [k.time for k in kept] != [r.time for r in rows]
    order = sorted(range(3), key=lambda i: str(kept[i].time))
    assert order == [1, 0, 2]


def test_only_chosen_kinds_are_looked_for() -> None:
    step = PrivacyStep("flag", frozenset({"ssn"}))
    assert [f.id for f in step.run([row("Dr. Kumar, 512-44-9812")]).findings] == ["D7-G01"]


def test_a_row_that_cant_be_read_is_kept_without_its_identifiers() -> None:
    hide = Masks(always=("customer",))
    raw = '{"text": "I am Dr. Kumar", "customer": "c9", "mrn": 4821, Ann Okafor, "label": '
    item = Rejected("not JSON: 'Dr. Kum'", "rows.jsonl:4", raw, "D1-R01", raw)
    told = hide.reject(item)
    assert (
        told.raw
        == '{"text": "I am Dr. [NAME]", "customer": "[OTHER]", "mrn": "[RECORD]", [NAME], "label": '
    )
    assert told.reason == f"lines that are not valid JSON ({WITHHELD})"
    plain = Rejected("the answer is empty", "rows.jsonl:5", '{"text": "hi"}', "D2-S05")
    assert hide.reject(plain) == plain


def test_a_long_broken_row_is_cut_beside_an_identifier_not_inside() -> None:
    raw = '{"text": "' + "plain words " * 332 + "My SSN is 512-44-9812 and so on " * 20
    told = Masks().reject(Rejected("not JSON", "rows.jsonl:4", raw[:2000], "D1-R01", raw))
    assert len(told.raw) <= 2000
    assert "512-44" not in told.raw
    assert WITHHELD in told.reason


def test_findings_made_before_redaction_are_told_without_quote_and_old_id() -> None:
    found = [Finding("D3-U01", "'Kum' became 'Kumar'", "f:1", "old"), Finding("D3-W01", "x", "f:2")]
    told = hidden_findings(found, {"old": "new"})
    assert (told[0].detail, told[0].example) == (WITHHELD, "new")
    assert told[1] == found[1]


def test_the_report_counts_by_kind_and_shows_masked_examples() -> None:
    step = PrivacyStep("flag")
    step.run([row("My name is Margaret Featherstone, call +1 (555) 555-0142")])
    (card,) = report.section(step.summary.as_dict())
    assert "names" in card
    assert "telephone numbers" in card
    assert "My name is [NAME], call [PHONE]" in card
    assert "Margaret" not in card
    assert report.section(None) == []
    step.run([row("nothing here")])
    assert "None was found in 1 rows" in report.section(step.summary.as_dict())[0]


def test_every_kind_has_its_finding_in_the_catalogue() -> None:
    assert all(kind.finding in catalogue() for kind in KINDS.values())
    assert {kind.letter for kind in KINDS.values()} == set("ABCDEFGHIJKLMNOPQR")


class FakeAnalyzer:
    """Presidio's engine: says that every `Quill` is a person and every `Spain` a place."""

    def get_supported_entities(self, language: str) -> list[str]:
        return ["PERSON", "LOCATION", "DATE_TIME"]

    def analyze(self, *, text: str, entities: list[str], **_: Any) -> list[Any]:
        assert "DATE_TIME" not in entities
        found = (("Quill", "PERSON", 0.9), ("Spain", "LOCATION", 0.9))
        return [
            SimpleNamespace(start=text.index(w), end=text.index(w) + len(w), entity_type=e, score=s)
            for w, e, s in found
            if w in text
        ]


def test_presidio_adds_to_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    find = PresidioDetector(FakeAnalyzer())
    text = "Quill went to Spain with 512-44-9812"
    spans = [(s.kind, text[s.start : s.end]) for s in find(text, frozenset(KINDS))]
    assert spans == [("name", "Quill"), ("ssn", "512-44-9812")]
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(EnvironmentProblem, match="presidio-analyzer is not installed"):
        PresidioDetector()
