"""Every container of rows is read piece by piece; what is broken is named, and the rest goes on."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tutelage.core import plugins
from tutelage.core.config import Columns
from tutelage.core.errors import DataError, EnvironmentProblem
from tutelage.core.output import OutputFormat
from tutelage.data.readers import json_stream, jsonl, table
from tutelage.data.readers.base import Broken, RawRow, ReadResult, read_sources
from tutelage.data.readers.form import fields_of
from tutelage.data.readers.hub import HubName, parse_name, read_hub
from tutelage.data.readers.json_stream import BadJson, Window, read_values

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(4)]


def read(root: Path, name: str, **settings: Any) -> ReadResult:
    return read_sources(root, [name], Columns(), OutputFormat(), **settings)


def kept(result: ReadResult) -> list[str]:
    return [row.input_text for row in result.examples]


def reasons(result: ReadResult) -> dict[str, str]:
    return {row.source: row.reason for row in result.rejected}


def lines(rows: list[Any] = ROWS) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


WHOLE = {
    "lines": lines(),
    "lines without an end": lines().rstrip("\n"),
    "lines with CRLF": lines().replace("\n", "\r\n"),
    "lines with a mark at the beginning": "\ufeff" + lines(),
    "lines with blank ones between": lines().replace("\n", "\n\n"),
    "a list": json.dumps(ROWS),
    "a list over several lines": json.dumps(ROWS, indent=2),
    "a list with a row a line": "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
    "an object around a list": json.dumps({"object": "list", "data": ROWS, "has_more": False}),
    "an object around an indented list": json.dumps({"meta": {"n": 4}, "rows": ROWS}, indent=1),
    "an object of objects": json.dumps({f"id{i}": row for i, row in enumerate(ROWS)}, indent=1),
    "objects over several lines": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "objects one after another": "".join(json.dumps(row, indent=0) for row in ROWS),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_json_is_read_in_every_layout(tmp_path: Path, name: str, ending: str) -> None:
    if ending == ".jsonl" and name in ("an object around a list", "objects one after another"):
        pytest.skip("one line of one object is a row there")
    (tmp_path / f"rows{ending}").write_text(WHOLE[name], encoding="utf-8", newline="")
    result = read(tmp_path, f"rows{ending}")
    assert kept(result) == [row["prompt"] for row in ROWS]
    assert result.rejected == []


def test_a_row_alone_in_a_json_file_is_a_row(tmp_path: Path) -> None:
    row = {"input": {"messages": [{"role": "user", "content": "q"}]},
           "preferred_output": [{"role": "assistant", "content": "a"}],
           "non_preferred_output": [{"role": "assistant", "content": "b"}]}  # fmt: skip
    (tmp_path / "row.json").write_text(json.dumps(row, indent=2))
    assert kept(read(tmp_path, "row.json")) == ["q"]


def test_values_are_the_same_through_a_window_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)
    values = [
        {"text": "".join(draw.choices('ab"\\\u00e9\n{}[],:', k=draw.randrange(40))),
         "n": draw.choice([1, -2.5e3, True, None, "\u2028"]), "deep": [[{}], {"x": []}]}
        for _ in range(60)
    ]  # fmt: skip
    for text in (json.dumps(values), json.dumps(values, indent=3), json.dumps({"data": values})):
        for chunk in (1, 7, 64, 1 << 20):
            monkeypatch.setattr(json_stream, "_CHUNK", chunk)
            assert list(read_values(Window(io.StringIO(text), 10_000))) == values


def test_a_list_is_read_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[" + ", ".join(json.dumps(row) for row in ROWS * 20_000))
    reader = jsonl.JsonlReader().read(path, "utf-8")
    first = next(reader)
    assert getattr(first, "fields", None) == ROWS[0]
    frame = reader.gi_frame.f_locals["stream"]  # type: ignore[attr-defined]
    assert frame.buffer.tell() < path.stat().st_size / 2


BROKEN_JSON: dict[str, tuple[str, str, dict[str, str]]] = {
    "a broken line": (
        "rows.jsonl",
        lines(ROWS[:1]) + '{"prompt": "q", "completion": \n' + lines(ROWS[1:2]),
        {"rows.jsonl:2": "not valid JSON: expecting value at column 31"},
    ),
    "a NUL byte": (
        "rows.jsonl",
        lines(ROWS[:1]) + '{"prompt": "a\0b", "completion": "x"}\n' + lines(ROWS[1:2]),
        {"rows.jsonl:2": "not valid JSON: a NUL byte at column 14"},
    ),
    "half a character": (
        "rows.jsonl",
        lines(ROWS[:1]) + '{"prompt": "\\ud83d", "completion": "x"}\n' + lines(ROWS[1:2]),
        {"rows.jsonl:2": "not UTF-8 text: half a character at column 13"},
    ),
    "an entry that is no object": (
        "rows.json",
        json.dumps([ROWS[0], 7, ROWS[1]]),
        {"rows.json#2": "the entry holds a number, not an object"},
    ),
    "a broken entry of a list in lines": (
        "rows.json",
        "[\n  " + ",\n  ".join([json.dumps(ROWS[0]), '{"prompt": "q" "x"}', json.dumps(ROWS[1])])
        + "\n]",
        {"rows.json#2": "not valid JSON: expecting ',' delimiter near '{\"prompt\": \"q\" \"x\"}"},
    ),
    "a list that was cut off": (
        "rows.json",
        json.dumps(ROWS[:2])[:-1],
        {"rows.json#3": "the list is not closed: the file may be cut off"},
    ),
    "a list on one line, broken in the middle": (
        "rows.json",
        json.dumps(ROWS[:2])[:-1] + ", {oops}, " + json.dumps(ROWS[2]) + "]",
        {
            "rows.json#3": "not valid JSON: expecting property name enclosed in double quotes near",
            "rows.json#4": "what follows (",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_broken_json_is_named_and_the_rest_goes_on(tmp_path: Path, name: str) -> None:
    file, text, expected = BROKEN_JSON[name]
    (tmp_path / file).write_text(text, encoding="utf-8", newline="")
    result = read(tmp_path, file)
    assert kept(result)[:2] == ["question 0", "question 1"]
    found = reasons(result)
    assert list(found) == list(expected)
    for place, reason in expected.items():
        assert found[place].startswith(reason), found[place]


def test_lines_and_entries_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_LINE_LIMIT", 200)
    monkeypatch.setattr(json_stream, "_CHUNK", 64)
    huge = {"prompt": "x" * 1000, "completion": "y"}
    (tmp_path / "rows.jsonl").write_text(lines([ROWS[0], huge, ROWS[1]]))
    result = read(tmp_path, "rows.jsonl")
    assert kept(result) == ["question 0", "question 1"]
    assert reasons(result) == {"rows.jsonl:2": "the line has 1,034 characters"}
    endless = '[{"prompt": "a", "completion": "b"}, {"prompt": "' + "x" * 1000
    values = list(read_values(Window(io.StringIO(endless), 200)))
    assert values[0] == {"prompt": "a", "completion": "b"}
    assert isinstance(values[1], BadJson)
    assert values[1].detail == "the entry has over 200 characters"


def test_deep_nesting_and_long_numbers_are_one_sentence(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "rows.jsonl").write_text(
        lines(ROWS[:1])
        + f'{{"prompt": {deep}, "completion": "x"}}\n'
        + f'{{"prompt": "q", "completion": {"9" * 5000}}}\n'
    )
    found = reasons(read(tmp_path, "rows.jsonl"))
    assert found["rows.jsonl:2"] == "the line is nested too deeply"
    assert found["rows.jsonl:3"].startswith("a number is too long to read")


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-16-le", b""), ("utf-16-be", b""), ("utf-16", b""), ("utf-8", b"\xef\xbb\xbf")],
)
def test_an_encoding_is_found(tmp_path: Path, encoding: str, mark: bytes) -> None:
    text = '{"prompt": "na\u00efve?", "completion": "yes"}\n'
    (tmp_path / "rows.jsonl").write_bytes(mark + text.encode(encoding))
    (tmp_path / "rows.csv").write_bytes(
        mark + "prompt,completion\nna\u00efve?,yes\n".encode(encoding)
    )
    assert kept(read(tmp_path, "rows.*")) == ["na\u00efve?"] * 2


def test_binary_is_no_text_and_other_files_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "b.jsonl").write_text(lines())
    result = read(tmp_path, "*.jsonl")
    assert len(result.examples) == 4
    assert reasons(result) == {"a.jsonl": "this is binary data, not text"}
    assert result.detected[0] == "a.jsonl: this is binary data, not text"
    with pytest.raises(DataError, match=r"a.jsonl: this is binary data"):
        read(tmp_path, "a.jsonl")


TABLES: dict[str, tuple[str, list[str], list[str]]] = {
    "quotes in quotes": ('prompt,completion\n"say ""hi"", now",x\n', ['say "hi", now'], []),
    "a line break in quotes": ('prompt,completion\n"two\nlines",x\n', ["two\nlines"], []),
    "CRLF": ("prompt,completion\r\na,x\r\nb,x\r\n", ["a", "b"], []),
    "semicolons": ("prompt;completion\na,b;x\n", ["a,b"], []),
    "a mark at the beginning": ("\ufeffprompt,completion\na,x\n", ["a"], []),
    "blank lines": ("prompt,completion\n\na,x\n,\n", ["a"], []),
    "a NUL byte": (
        "prompt,completion\na,x\nb\0,x\nc,x\n",
        ["a", "c"],
        ["not text: a NUL byte in the column 'prompt'"],
    ),
    "a column too many": (
        "prompt,completion\na,x\nb,x,y\nc,x\n", ["a", "c"], ["3 columns instead of 2"],
    ),
    "a quote that is never closed": (
        'prompt,completion\na,x\n"b,x\nc,x\n', ["a", "c"],
        ["broken quotes: the quote is never closed"],
    ),
    "two columns of one name": ("prompt,note,completion,note\na,1,x,2\n", ["a"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_and_bad_rows_named(tmp_path: Path, name: str) -> None:
    text, inputs, bad = TABLES[name]
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8", newline="")
    result = read(tmp_path, "rows.csv")
    assert kept(result) == inputs
    assert [row.reason for row in result.rejected] == bad


def test_a_wildcard_beside_other_sources_may_match_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines())
    found = read_sources(tmp_path, ["a.jsonl", "data/*.jsonl"], Columns(), OutputFormat())
    assert len(kept(found)) == len(ROWS)
    assert "no file matches 'data/*.jsonl' yet" in found.detected
    for patterns in (["a.jsonl", "data/b.jsonl"], ["data/*.jsonl"], ["data/*.csv", "b/*.csv"]):
        with pytest.raises(DataError, match="no file matches"):
            read_sources(tmp_path, patterns, Columns(), OutputFormat())


def test_a_second_column_of_one_name_gets_its_own(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,note,completion,note\na,1,x,2\n")
    result = read(tmp_path, "rows.csv")
    assert result.examples[0].meta["note"] == "1"
    assert result.examples[0].meta["note_2"] == "2"
    assert result.detected[1] == "rows.csv: column 4 is called 'note' too, and read as 'note_2'"


def test_a_field_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_FIELD_LIMIT", 100)
    (tmp_path / "rows.csv").write_text(f"prompt,completion\na,x\n{'b' * 500},x\nc,x\n")
    result = read(tmp_path, "rows.csv")
    assert kept(result) == ["a", "c"]
    assert reasons(result) == {"rows.csv:3": "a field has over 100 characters"}


def test_parquet_with_nested_types(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = {
        "messages": [turns, turns],
        "when": [datetime(2026, 3, 1, tzinfo=UTC), None],
        "price": [Decimal("1.50"), Decimal("2")],
        "share": [float("nan"), 0.5],
        "raw": [b"abc", b"\xff\xfe"],
        "counts": arrow.array([[("a", 1)], []], arrow.map_(arrow.string(), arrow.int64())),
    }
    parquet.write_table(arrow.table(rows), tmp_path / "rows.parquet")
    result = read(tmp_path, "rows.parquet")
    assert kept(result) == ["q", "q"]
    first = fields_of(result.examples[0])
    assert first == {
        "when": "2026-03-01T00:00:00+00:00", "price": 1.5, "raw": "abc", "counts": {"a": 1},
    }  # fmt: skip
    json.dumps([row.meta for row in result.examples])


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1" + b"\0" * 40)
    with pytest.raises(DataError, match=r"rows.parquet: the file is not readable as Parquet"):
        read(tmp_path, "rows.parquet")


def test_a_saved_data_set_is_read_with_its_splits_and_label_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["cold", "warm"])}
    )
    part = datasets.Dataset.from_dict(
        {"text": ["ice", "fire", "sun"], "label": [0, 1, 1]}, features
    )
    both = datasets.DatasetDict({"train": part.select([0, 1]), "test": part.select([2])})
    both.save_to_disk(str(tmp_path / "saved"))
    part.to_parquet(str(tmp_path / "part.parquet"))
    result = read(tmp_path, "saved")
    assert [(row.input_text, row.label, row.meta["split"]) for row in result.examples] == [
        ("ice", "cold", "train"), ("fire", "warm", "train"), ("sun", "warm", "test"),
    ]  # fmt: skip
    part.save_to_disk(str(tmp_path / "alone"))
    assert [row.label for row in read(tmp_path, "al*").examples] == ["cold", "warm", "warm"]
    assert [row.label for row in read(tmp_path, "part.parquet").examples] == [
        "cold",
        "warm",
        "warm",
    ]


def test_a_damaged_saved_data_set_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"state.json of the saved data set can't be read"):
        read(tmp_path, "saved")


def test_the_hub_without_a_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def offline(*arguments: Any, **named: Any) -> Any:
        raise ConnectionError("Couldn't reach 'org/name' on the Hub (OfflineModeIsEnabled)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        EnvironmentProblem, match=r"hf:org/name: the data set can't be loaded"
    ) as told:
        list(read_hub(HubName("org/name"), []))
    assert "\n" not in told.value.sentence()


def test_rows_of_the_hub_carry_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"prompt": ["q"], "completion": ["a"]})
    asked: list[Any] = []

    def load(name: str, config: str | None, split: str | None) -> Any:
        asked.append((name, config, split))
        return made if split else datasets.DatasetDict({"train": made, "test": made})

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(read_hub(parse_name("hf:org/name/main"), []))
    assert [row.fields["split"] for row in rows] == ["train", "test"]  # type: ignore[union-attr]
    (row,) = read_hub(parse_name("hf:org/name:train"), [])
    assert row.fields == {"split": "train", "prompt": "q", "completion": "a"}  # type: ignore[union-attr]
    assert asked == [("org/name", "main", None), ("org/name", None, "train")]


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c/d", "hf:/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Exception, match="names no data set"):
        parse_name(name)


@pytest.mark.parametrize("name", sorted(plugins.available("readers")))
@pytest.mark.parametrize("body", [b"", b"\n", b"\0\1\2" * 50, b"{[\"',\xff\n" * 20])
def test_every_reader_gives_items_or_one_sentence(tmp_path: Path, name: str, body: bytes) -> None:
    reader = plugins.load("readers", name)()
    path = tmp_path / "odd"
    path.write_bytes(body)
    assert isinstance(reader.accepts(path, body), bool)
    try:
        items = list(reader.read(path, "utf-8"))
    except EnvironmentProblem as missing:
        pytest.skip(missing.what)
    assert all(isinstance(item, (RawRow, Broken)) for item in items)
