"""A thousand malformed files: no traceback, and no row that was left alone is ever lost."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.config import Columns
from tutelage.core.errors import TutelageError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.clean import CleanStep
from tutelage.data.filters.base import FilterSettings, FilterStep, load_filters
from tutelage.data.mend import better, mend_fields, mend_line
from tutelage.data.pipeline import PipelineResult, run_steps
from tutelage.data.readers.base import ReadResult, read_sources
from tutelage.data.version import row_text

ROWS = 30
FILES_A_FORMAT = 150  # times seven formats: over a thousand files
LABELS = ("warm", "cold")
CONFIG = """\
name: fuzz
task: classification
model: demo
data:
  sources: [data/*]
  columns: {input: text, output: label}
"""


def sample_rows() -> list[dict[str, str]]:
    """Rows that can be told apart wherever they turn up, with what formats stumble over."""
    odd = (
        "plain",
        "a, comma",
        'a "quote"',
        "a tab\there",
        "ünï©ødé €",
        "日本語",
        "[1] {2}",
        "x;y|z",
    )
    return [
        {"text": f"row q{index:04d}z is {odd[index % len(odd)]}", "label": LABELS[index % 2]}
        for index in range(ROWS)
    ]


def marker(row: dict[str, str]) -> str:
    return row["text"].split()[1]


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_chats(rows: list[dict[str, str]]) -> str:
    turns = [
        {"messages": [{"role": "user", "content": r["text"]},
                      {"role": "assistant", "content": r["label"]}]}
        for r in rows
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in turns)


def as_list(rows: list[dict[str, str]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def as_pretty(rows: list[dict[str, str]]) -> str:
    return json.dumps(rows, indent=2, ensure_ascii=False)


def as_table(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("text", "label"), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_tsv(rows: list[dict[str, str]]) -> str:
    return as_table(rows, "\t")


def as_wrapped(rows: list[dict[str, str]]) -> str:
    return '{"made": "today", "data": ' + as_pretty(rows) + "}"


FORMATS: dict[str, tuple[str, Callable[[list[dict[str, str]]], str]]] = {
    "jsonl": ("rows.jsonl", as_jsonl),
    "chats": ("rows.jsonl", as_chats),
    "list": ("rows.json", as_list),
    "pretty": ("rows.json", as_pretty),
    "wrapped": ("rows.json", as_wrapped),
    "csv": ("rows.csv", as_table),
    "tsv": ("rows.tsv", as_tsv),
}

Mutation = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def delete(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice((1, 2, 9, 80, 400)) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    piece = rng.choice((
        b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\r\n", b"\0", b"\0" * 50,
        b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b'""',
        b"9" * 5000, b"1e999", b"-1e-999", b"NaN", b"[" * 3000, b'{"a":' * 300, b"\x1b[31m",
        b"<|im_end|>", b"\x0c\x0b\x1c\x85", b" " * 3000, b'",\n"', b"null",
        b"true,", b"text,label\n",
    ))  # fmt: skip
    return data[:place] + piece + data[place:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    piece = data[place : place + rng.choice((1, 30, 200))]
    return data[:place] + piece * rng.choice((2, 3, 40)) + data[place:]


def swap(data: bytes, rng: random.Random) -> bytes:
    one, two = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    size = rng.choice((1, 10, 60))
    return (
        data[:one]
        + data[two : two + size]
        + data[one + size : two]
        + data[one : one + size]
        + data[two + size :]
    )


def noise(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 4, 40))) + data[place:]


def line_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\n\r\n")))


def recode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    name = rng.choice(("latin-1", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1252", "utf-7"))
    return text.encode(name, "replace")


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip, delete, delete, insert, insert, insert, duplicate, swap, noise, truncate,
    line_ends, recode,
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        data = rng.choice(MUTATIONS)(data, rng) or b" "
    return data


def read(root: Path) -> ReadResult | None:
    """Return what the sources hold; None if they are refused in a sentence."""
    columns = Columns(input="text", output="label")
    try:
        return read_sources(root, ["data/*"], columns, OutputFormat(), "classification")
    except TutelageError as error:
        assert error.what
        return None


def checked(result: ReadResult) -> PipelineResult:
    """Run cleaning and every layer, and write every row that is left; nothing may vanish."""
    layers = load_filters(FilterSettings(task="classification", language="en", max_tokens=4000))
    steps = [CleanStep("classification"), *(FilterStep(*layer) for layer in layers.items())]
    done = run_steps(result.examples, steps)
    assert len(done.kept) + len(done.quarantined) == len(result.examples)
    for row in done.kept:
        line = row_text(row)
        line.encode("utf-8")
        assert Example.model_validate_json(line).id == row.id
    for left in done.quarantined:
        json.dumps(left.as_dict(), ensure_ascii=False).encode("utf-8")
    for rejected in result.rejected:
        json.dumps(rejected.raw, ensure_ascii=False).encode("utf-8")
        mend_line(rejected.whole)
    assert all(finding.where for finding in done.findings if finding.example)
    list(better(done.kept, OutputFormat()))
    return done


def came_out(result: ReadResult, *, alone: bool) -> str:
    """Return everything that came out, as a row or as rejected text.

    With `alone`, a rejected text that holds several rows is no place for a row that was whole.
    """
    kept = [
        " ".join([*(turn.content for turn in row.messages), json.dumps(row.meta, default=str)])
        for row in result.examples
    ]
    left = [row.whole for row in [*result.rejected, *result.skipped]]
    return "\n".join([*kept, *(text for text in left if not alone or text.count(" q00") < 2)])


def untouched(data: bytes, original: bytes, rows: list[dict[str, str]]) -> list[str]:
    """Return the markers of the rows whose lines stand whole, on lines of their own."""
    bounds = original.split(b"\n")
    found = []
    for row in rows:
        own = marker(row).encode()
        (place,) = [i for i, line in enumerate(bounds) if own in line]
        alone = bounds[place].lstrip()[:1] == b"{" or not original.startswith((b"[", b"{"))
        lines = bounds[place : place + 1] if alone else bounds[place - 1 : place + 3]
        block = b"\n" + b"\n".join(lines) + b"\n"
        if block in b"\n" + data + b"\n":
            found.append(marker(row))
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_malformed_files_lose_no_row_that_was_left_alone(name: str, tmp_path: Path) -> None:
    file, write = FORMATS[name]
    rows = sample_rows()
    original = write(rows).encode()
    path = tmp_path / "data" / file
    path.parent.mkdir()
    refused = 0
    for seed in range(FILES_A_FORMAT):
        rng = random.Random(f"{name} {seed}")
        data = mutated(original, rng)
        path.write_bytes(data)
        result = read(tmp_path)
        if result is None:
            refused += 1
            continue
        checked(result)
        if not any(row.source == f"data/{file}" for row in result.rejected):  # the whole file
            # an open quote of a table may hold the lines of other rows
            out = came_out(result, alone=not file.endswith(("csv", "tsv")))
            lost = [mark for mark in untouched(data, original, rows) if mark not in out]
            assert not lost, f"seed {seed}"
            if file.endswith(".jsonl"):
                every_line_is_accounted_for(data, result, seed)
    assert refused < FILES_A_FORMAT // 3


def every_line_is_accounted_for(data: bytes, result: ReadResult, seed: int) -> None:
    """Hold the line numbers that came out against those of the lines that are not blank."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        return  # not UTF-8: lines are counted in another encoding
    sources = [row.origin.source for row in result.examples]
    sources += [row.source for row in [*result.rejected, *result.skipped]]
    found = {int(source.rpartition(":")[2]) for source in sources if ":" in source}
    text = data.decode("utf-8-sig", "surrogateescape")
    expected = {number for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    assert found == expected or not found, f"seed {seed}"


@pytest.mark.parametrize("depth", [50, 150, 300, 990, 5000])
def test_a_row_that_a_version_could_not_be_read_with_is_rejected(
    depth: int, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    deep = '{"a":' * depth + "1" + "}" * depth
    line = f'{{"text": "deep", "label": "warm", "more": {deep}}}\n'
    text = as_jsonl(sample_rows()) + line
    (tmp_path / "data" / "rows.jsonl").write_text(text, encoding="utf-8")
    result = read(tmp_path)
    assert result is not None
    checked(result)
    rejected = [(row.finding_id, row.source) for row in result.rejected]
    assert rejected == ([("D1-R08", f"data/rows.jsonl:{ROWS + 1}")] if depth > 100 else [])


NAMES = (
    "messages", "conversations", "text", "label", "prompt", "completion", "instruction", "input",
    "output", "response", "role", "content", "tool_calls", "id", "choices", "trace", "", "a\0b",
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=20)
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "Human", "gpt", "x"])},
    optional={
        "content": SCALARS | st.lists(st.dictionaries(st.sampled_from(["type", "text"]), SCALARS)),
        "value": SCALARS,
        "tool_calls": SCALARS
        | st.lists(
            st.dictionaries(st.sampled_from(["id", "function", "name", "arguments"]), SCALARS)
        ),
        "tool_call_id": SCALARS,
        "name": SCALARS,
    },
)
VALUES = st.recursive(
    SCALARS | st.lists(TURN, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
ROW = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=5)
FUZZ = settings(
    max_examples=150, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@FUZZ
@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_any_json_rows_are_read_or_rejected_with_their_line(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("rows")
    (root / "data").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in [*rows, sample_rows()[0]])
    (root / "data" / "rows.jsonl").write_text(text, encoding="utf-8")
    for columns in (Columns(), Columns(input="text", output="label")):
        try:
            result = read_sources(root, ["data/*"], columns, OutputFormat(), "classification")
        except TutelageError:
            continue
        checked(result)
        every_line_is_accounted_for(text.encode(), result, 0)


@FUZZ
@given(fields=ROW, finding=st.sampled_from(["D2-S08", "D2-S09", "D2-S10", "D1-R04"]))
def test_mending_never_stumbles(fields: dict[str, Any], finding: str) -> None:
    output = OutputFormat("family", LABELS)
    for changed, what in mend_fields(fields, finding, output):
        assert isinstance(changed, dict) and what


@FUZZ
@given(
    cells=st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
)
def test_any_table_is_read_or_refused_in_a_sentence(
    cells: list[list[str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("table")
    (root / "data").mkdir()
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(
        [["text", "label"], *cells]
    )
    text = stream.getvalue().encode("utf-8", "surrogatepass")
    (root / "data" / "rows.csv").write_bytes(text)
    result = read(root)
    if result is not None:
        checked(result)


@pytest.mark.parametrize("name", ["chats", "pretty", "csv"])
def test_a_broken_file_beside_a_good_one_goes_through_the_command(
    name: str, make_project: Callable[..., Path]
) -> None:
    file, write = FORMATS[name]
    rng = random.Random(f"command {name}")
    good = [{"text": f"a good thing q{i:04d}z", "label": LABELS[i % 2]} for i in range(60)]
    broken = mutated(mutated(write(sample_rows()).encode(), rng), rng)
    root = make_project({"good.jsonl": as_jsonl(good), file: broken}, CONFIG)
    for command in (["check"], ["check", "--fix"], ["quarantine"]):
        done = CliRunner().invoke(app, ["data", *command, "--project", str(root)])
        assert done.exit_code in (0, 2), done.output
        assert "unexpected" not in done.output and "Traceback" not in done.output, done.output
