"""`data check --fix` mends what is certain as repairs, twice is once, and sources stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.output import OutputFormat
from tutelage.data.mend import mend_answer, mend_line, mend_time, without_edges
from tutelage.data.repairs import rows_in
from tutelage.workflows.context import open_context
from tutelage.workflows.data.check import check
from tutelage.workflows.data.fix import fix, plan_fixes, visible
from tutelage.workflows.data.quarantine import by_finding, quarantine

MakeProject = Callable[..., Path]
THINGS = ("fire", "ice", "ember", "snow", "sunset", "glacier", "lava", "frost", "amber", "sea")
OPEN = """\
name: colours
task: classification
model: demo
data:
  sources: [data/*]
  columns: {input: text, output: label}
"""


def good(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"text": f"the {THINGS[i % 10]} of the {i}th day", "label": "warm" if i % 2 else "cold"}
        for i in range(count)
    ]


def faulty() -> list[str]:
    """Forty lines, of which five can be mended, one is better without its tokens, two wait."""
    rows = good()
    lines = [json.dumps(row) for row in rows]
    lines[3] = lines[3][:-1] + ",},"
    lines[5] = repr(rows[5])
    lines[7] = '{"text": "half a row", "label": '
    lines[9] = json.dumps({"text": "a thing", "label": "Warm."})
    lines[11] = json.dumps({"text": "a  nice thing ", "label": "warm<|im_end|>"})
    lines[12] = json.dumps({"text": "another thing", "label": "wram"})
    lines[13] = json.dumps({"text": "[INST] cold lake [/INST]", "label": "cold"})
    lines[15] = lines[15] + lines[16]
    del lines[16]
    return lines


def call(root: Path, *arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["data", *arguments, "--project", str(root), "--json"])
    assert "Traceback" not in done.output
    return done.exit_code, json.loads(done.stdout.splitlines()[0])


def test_what_is_certain_is_mended_once_and_the_rest_waits(make_project: MakeProject) -> None:
    source = "\n".join(faulty()) + "\n"
    root = make_project({"rows.jsonl": source})
    code, before = call(root, "check")
    assert (code, before["kept"], before["lost"]) == (2, 32, 7)

    code, dry = call(root, "check", "--dry-run")
    assert (code, dry["lost"], dry["fixes"]["batch"]) == (2, 7, None)
    assert (dry["fixes"]["line"], dry["fixes"]["repair"], dry["fixes"]["clean"]) == (5, 1, 1)
    assert call(root, "repairs")[1] == {"batches": []}

    code, first = call(root, "check", "--fix")
    assert (code, first["kept"], first["lost"]) == (2, 38, 2)
    assert first["fixes"]["changes"] == dry["fixes"]["changes"]
    assert first["first"].startswith("data/rows.jsonl:8: not valid JSON")

    code, second = call(root, "check", "--fix")
    assert (second["kept"], second["lost"]) == (38, 2)
    assert (second["fixes"]["repairs"], second["fixes"]["batch"]) == (0, None)
    assert (second["fixes"]["line"], second["fixes"]["repair"], second["fixes"]["clean"]) == (
        0,
        0,
        1,
    )
    assert len(call(root, "repairs")[1]["batches"]) == 1
    assert (root / "data" / "rows.jsonl").read_text() == source

    call(root, "repairs", "--undo", first["fixes"]["batch"])
    assert call(root, "check")[1]["lost"] == 7


def test_mended_rows_are_in_the_version_with_their_line(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": "\n".join(faulty()) + "\n"})
    call(root, "check", "--fix")
    code, version = call(root, "split")
    assert (code, version["quarantined"]) == (2, 2)
    folder = Path(version["path"])
    rows = [
        json.loads(line)
        for side in ("train", "validation", "test")
        for line in (folder / f"{side}.jsonl").read_text().splitlines()
    ]
    by_line = {row["origin"]["source"]: row for row in rows}
    assert by_line["data/rows.jsonl:4"]["label"] == "warm"
    assert by_line["data/rows.jsonl:14"]["messages"][0]["content"] == "cold lake"
    assert by_line["data/rows.jsonl:14"]["origin"]["parents"]
    assert (
        sum(source == "data/rows.jsonl:16" for source in (r["origin"]["source"] for r in rows)) == 2
    )


def test_the_diff_shows_what_can_not_be_seen(make_project: MakeProject) -> None:
    lines = [json.dumps(row) for row in good()]
    lines[0] = json.dumps({"text": "a thing \u00a0 here  ", "label": "warm"})
    root = make_project({"rows.jsonl": "\n".join(lines)})
    found = plan_fixes(open_context(root))
    (change,) = found.changes
    assert (change.kind, change.finding, change.source) == ("clean", "D3-W01", "data/rows.jsonl:1")
    assert "-user: a thing ⟨00A0⟩ here··" in change.diff
    assert "+user: a thing here" in change.diff
    assert visible("a\tb\x07\t") == "a\tb⟨0007⟩→"


def test_people_see_the_diff_and_how_to_take_it_back(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": "\n".join(faulty())})
    done = CliRunner().invoke(app, ["data", "check", "--fix", "--project", str(root)])
    shown = " ".join(done.stdout.split())
    assert "data/rows.jsonl:6 a Python dictionary written as JSON D1-R01" in shown
    assert "-{'text': 'the glacier of the 5th day', 'label': 'warm'}" in shown
    assert "+user: the glacier of the 5th day" in shown
    assert "5 rows read from a repair of their line" in shown
    assert "takes it back" in shown
    again = CliRunner().invoke(app, ["data", "check", "--dry-run", "--project", str(root)])
    assert "kept as batch" not in again.stdout


def test_nothing_certain_says_so(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": "\n".join(json.dumps(row) for row in good())})
    done = CliRunner().invoke(app, ["data", "check", "--fix", "--project", str(root)])
    assert (done.exit_code, "Nothing to fix that is certain." in done.stdout) == (0, True)


def test_a_file_of_nothing_but_mendable_lines_is_mended(make_project: MakeProject) -> None:
    text = ",\n".join(json.dumps(row) for row in good()) + ",\n"
    root = make_project({"rows.jsonl": text})
    code, refused = call(root, "check")
    assert code == 2 and "can be used" in refused["what"]
    code, mended = call(root, "check", "--fix")
    assert (code, mended["kept"], mended["fixes"]["line"]) == (0, 40, 40)


def test_labels_get_their_usual_spelling(make_project: MakeProject) -> None:
    rows = [*good(), {"text": "an odd one", "label": "WARM"}, {"text": "another", "label": "Cold."}]
    root = make_project({"rows.jsonl": "\n".join(json.dumps(row) for row in rows)}, OPEN)
    ctx = open_context(root)
    found = fix(ctx)
    assert [(repair.action, repair.value) for repair in found.repairs] == [
        ("label", "warm"), ("label", "cold"),
    ]  # fmt: skip
    assert [change.finding for change in found.changes] == ["D2-T10", "D2-T10"]
    assert fix(ctx).repairs == []
    assert "D2-T10" not in [entry["id"] for entry in check(ctx)["findings"]]


def test_tables_and_times_are_mended_too(make_project: MakeProject) -> None:
    lines = ["text,label,when", *(f"{row['text']},{row['label']},2026-03-0{i % 9 + 1}"
                                  for i, row in enumerate(good()))]  # fmt: skip
    lines[2] = "a slash in the time,warm,2026/3/9"
    lines[3] = "a day that comes first,warm,09/03/2026"
    config = OPEN.replace("output: label}", "output: label, time: when}")
    root = make_project({"rows.csv": "\n".join(lines)}, config)
    code, mended = call(root, "check", "--fix")
    assert (code, mended["lost"], mended["fixes"]["line"]) == (2, 1, 1)
    assert mended["first"].startswith("data/rows.csv:4: the time '09/03/2026'")


def test_quarantine_lists_place_reason_remedy(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": "\n".join(faulty())})
    ctx = open_context(root)
    rows = quarantine(ctx)
    assert [row.place for row in rows] == [
        f"data/rows.jsonl:{n}" for n in (4, 6, 8, 10, 12, 13, 16)
    ]
    assert [row.mendable for row in rows] == [True, True, False, True, True, False, True]
    half = rows[2]
    assert half.remedy == "Correct the line; each must hold one JSON object"
    assert half.row == '{"text": "half a row", "label":' + " "
    assert by_finding(rows)[0][:2] == ("D1-R01", 4)
    assert [row.finding for row in quarantine(ctx, "D2")] == ["D2-S09"] * 3

    code, listed = call(root, "quarantine", "--finding", "D2-S")
    assert (code, listed["count"]) == (0, 3)
    assert set(listed["rows"][0]) == {
        "finding", "reason", "file", "line", "id", "remedy", "mendable", "row",
    }  # fmt: skip
    done = CliRunner().invoke(app, ["data", "quarantine", "--project", str(root)])
    shown = " ".join(done.stdout.split())
    assert "data/rows.jsonl:13 'wram' is not one of the 2 labels" in shown
    assert "`tutelage data check --fix` mends 5 of them." in shown


def test_an_empty_quarantine_says_so(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": "\n".join(json.dumps(row) for row in good())})
    done = CliRunner().invoke(app, ["data", "quarantine", "--project", str(root)])
    assert (done.exit_code, done.stdout.strip()) == (0, "No row waits: all can be used.")


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ('{"a": 1,}', [{"a": 1}]),
        ('{"a": "x, }", "b": [1, 2,],},', [{"a": "x, }", "b": [1, 2]}]),
        ("{'a': 'it', 'b': None, 'c': (1, True)}", [{"a": "it", "b": None, "c": [1, True]}]),
        ('[{"a": 1},', [{"a": 1}]),
        ('{"a": 1}]', [{"a": 1}]),
        ('{"a": "b"}{"a": "c"}', [{"a": "b"}, {"a": "c"}]),
        ('{"a": "tab\there"}', [{"a": "tab\there"}]),
        ('{"a": "don\\\'t"}', [{"a": "don't"}]),
        ('\ufeff{"a": 1}\u200b', [{"a": 1}]),
        ('{"a": "\u2028"},', [{"a": "\u2028"}]),
    ],
)
def test_a_line_with_one_reading_is_mended(line: str, rows: list[dict[str, Any]]) -> None:
    mended = mend_line(line)
    assert mended is not None and rows_in(mended[0]) == rows


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1', '{"a": "b', '{"a": "b}', "{a: 1}", '{"a": 1} and more', "{'a': b'x'}",
        "{'a': {1}}", '{"a": “b”}', '{"a": 1}}', "{'a': __import__('os')}", "[1, 2]", "", "nothing",
        "{" * 100_000, '{"a": "\\ud800",}', '{"a": "\0"}', "{'a': " + "9" * 5000 + "}",
        '{"a": 1,, "b": 2}', "{}",
    ],
)  # fmt: skip
def test_a_line_with_several_readings_is_left(line: str) -> None:
    assert mend_line(line) is None


def test_answers_and_times_with_one_reading() -> None:
    labels = OutputFormat("family", ("warm", "cold"))
    for text in ("warm</s>", "Warm.", "'warm'", '```json\n{"family": "warm"}\n```',
                 "{'family': 'WARM'}", "Label: warm", '{"family": "warm",}'):  # fmt: skip
        assert mend_answer(text, labels) == '{"family": "warm"}'
    for text in ("wram", "warm or cold", '{"family": "warm", "sure": 1}', "", "{" * 5000):
        assert mend_answer(text, labels) is None
    assert mend_time("2026/3/1 10:00") == "2026-03-01T10:00"
    assert mend_time("Tue, 31 Mar 2026 14:05:00 +0000") == "2026-03-31T14:05:00+00:00"
    for text in ("31/03/2026", "03.04.26", "yesterday", "Tue, 99 Foo"):
        assert mend_time(text) is None


def test_control_tokens_are_taken_off_the_edges_only() -> None:
    assert without_edges("<|im_start|>assistant\nHello.<|im_end|>\n") == "Hello."
    assert without_edges("### Response:\nHello.</s>") == "Hello."
    assert without_edges("Hello.<|im_end|><|im_start|>user\nMore") is None
    assert without_edges("<|im_end|>") is None
