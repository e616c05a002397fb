"""What was read can be written as it was: JSON lines object by object, tables column by column."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import BASIC_CONFIG
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.config import Columns
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.data.readers.shape import Shaper
from tutelage.data.repairs import Repair, apply
from tutelage.data.writers.files import write_csv
from tutelage.data.writers.rows import openai_row, table_row
from tutelage.workflows.context import open_context
from tutelage.workflows.data.export import Export, export_file, export_version
from tutelage.workflows.data.files import Reading, import_files, import_into

MakeProject = Callable[..., Path]
PLAIN = Shaper(Columns(), OutputFormat())
CHAT_CONFIG = "name: helper\nmodel: demo\nprompt: Be kind.\n"

CALL = {"id": "c1", "type": "function",
        "function": {"name": "find", "arguments": '{"city": "Rome"}'}}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
TRICKY: dict[str, dict[str, Any]] = {
    "tool calls": {
        "messages": [
            {"role": "user", "content": "weather in Rome?", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "assistant", "content": "It is sunny."},
        ],
        "tools": TOOLS,
        "parallel_tool_calls": False,
    },
    "weights": {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "first", "weight": 0},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "second", "weight": 1},
        ]
    },
    "developer and key order": {
        "id": 7,
        "messages": [
            {"content": "Be brief.", "role": "developer"},
            {"role": "user", "content": "q", "name": None},
            {"role": "assistant", "content": "a", "refusal": None},
        ],
        "metadata": {"b": 1, "a": [1, 2]},
        "empty": "",
        "none": None,
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "a "}, {"type": "text", "text": "b", "cache": True}]},
            {"role": "assistant", "content": ["x", "y"]},
        ]
    },
    "a call without a content": {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": "a"},
        ],
        "functions": [{"name": "f"}],
    },
    "a label beside": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "label": "fine",
    },
    "openpipe": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "tools": None, "tool_choice": None, "split": "TRAIN", "metadata": {"tag": "x"},
    },
    "preference": {
        "input": {"messages": [{"role": "user", "content": "q"}], "tools": TOOLS,
                  "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    },
}  # fmt: skip


def same(one: Any, two: Any) -> None:
    """Check that two JSON values are equal, with the same order of fields."""
    assert json.dumps(one) == json.dumps(two)


def through(row: dict[str, Any], shaper: Shaper = PLAIN) -> dict[str, Any]:
    """Read a row, keep it as a version would, and write it."""
    example, _ = shaper.example(row, "x:1")
    kept = type(example).model_validate_json(
        json.dumps(example.model_dump(mode="json", exclude_defaults=True))
    )
    return openai_row(kept)


@pytest.mark.parametrize("name", TRICKY)
def test_an_openai_row_comes_back_as_it_was(name: str) -> None:
    same(through(TRICKY[name]), TRICKY[name])


def test_group_and_time_come_back_with_their_type() -> None:
    shaper = Shaper(Columns(group="patient", time="day"), OutputFormat())
    row = {"patient": 12, **TRICKY["weights"], "day": "2026-01-02"}
    assert shaper.example(row, "x:1")[0].group == "12"
    same(through(row, shaper), row)


def test_training_sees_plain_roles_and_texts() -> None:
    example, _ = PLAIN.example(TRICKY["developer and key order"], "x:1")
    assert [m.role for m in example.messages] == ["system", "user", "assistant"]
    assert all(not m.model_extra for m in example.messages)
    parts, _ = PLAIN.example(TRICKY["parts"], "x:1")
    assert [m.content for m in parts.messages] == ["a b", "xy"]
    plain, _ = PLAIN.example({"messages": [m.model_dump() for m in parts.messages]}, "y:1")
    assert plain.id == parts.id


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
parts = st.lists(
    texts | st.fixed_dictionaries({"type": st.just("text"), "text": texts}), min_size=1, max_size=3
)
turns = st.builds(
    lambda role, content, extra, late: (
        {**extra, "role": role, "content": content}
        if late
        else {"role": role, "content": content, **extra}
    ),
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    st.none() | texts | parts,
    st.dictionaries(st.sampled_from(["name", "refusal", "value", "from", "id", "weight"]),
                    st.none() | st.just("x") | st.just(1), max_size=2),
    st.booleans(),
)  # fmt: skip
rows = st.builds(
    lambda turns, before, after: {**before, "messages": turns, **after},
    st.lists(turns, max_size=5),
    st.dictionaries(st.sampled_from(["id", "tools", "n"]), values, max_size=2),
    st.dictionaries(st.sampled_from(["meta", "note", "label", "split"]), values, max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_any_openai_row_comes_back_as_it_was(row: dict[str, Any]) -> None:
    same(through(row), row)


def test_a_change_is_written_and_what_was_special_stays() -> None:
    example, _ = PLAIN.example(TRICKY["tool calls"], "x:1")
    changed = apply(example, Repair(example.id, "answer", "It rains."), OutputFormat())
    row = openai_row(changed)
    assert row["messages"][-1] == {"role": "assistant", "content": "It rains."}
    assert row["messages"][1]["content"] is None
    assert list(row) == list(TRICKY["tool calls"])
    parts, _ = PLAIN.example(TRICKY["parts"], "x:1")
    shorter = parts.model_copy(
        update={"messages": (Message(role="user", content="[NAME]"), parts.messages[1])}
    )
    assert openai_row(shorter)["messages"][0]["content"] == [{"type": "text", "text": "[NAME]"}]
    labelled, _ = PLAIN.example(TRICKY["a label beside"], "x:1")
    assert openai_row(labelled.model_copy(update={"label": "bad"}))["label"] == "bad"


def test_a_removed_text_is_nowhere_in_the_note() -> None:
    example, _ = PLAIN.example(TRICKY["parts"], "x:1")
    secret = example.model_copy(
        update={"messages": tuple(m.model_copy(update={"content": "*"}) for m in example.messages)}
    )
    assert "a b" not in json.dumps(secret.model_dump())
    assert '"b"' not in json.dumps(secret.model_dump())


def test_only_what_a_fine_tuning_job_takes() -> None:
    example, _ = PLAIN.example(TRICKY["developer and key order"], "x:1")
    assert list(openai_row(example, bare=True)) == ["messages"]
    example, _ = PLAIN.example(TRICKY["tool calls"], "x:1")
    assert list(openai_row(example, bare=True)) == ["messages", "tools", "parallel_tool_calls"]


def test_a_table_row_gets_its_columns_back() -> None:
    shaper = Shaper(Columns(), OutputFormat("intent", ("lost", "found")))
    row = {"id": "7", "text": "where?", "note": "", "intent": "lost", "who": "ann"}
    example, _ = shaper.example(row, "x:1")
    assert example.answer == '{"intent": "lost"}'
    same(table_row(example, plain=True), row)
    changed = apply(example, Repair(example.id, "label", "found"), shaper.output)
    same(table_row(changed, plain=True), {**row, "intent": "found"})
    chat, _ = PLAIN.example(TRICKY["a label beside"], "x:1")
    assert table_row(chat, plain=True) == {"prompt": "q", "completion": "a", "label": "fine"}


def test_csv_can_be_read_again_whatever_it_holds(tmp_path: Path) -> None:
    odd = ['say "hi", now', "two\nlines", "lone\rreturn", "crlf\r\nend", " spaces ", "", "ünï 💊"]
    rows = [{"prompt": text, "n": i, "list": [text]} for i, text in enumerate(odd)]
    assert write_csv(tmp_path / "a.csv", lambda: rows) == len(odd)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["prompt"] for row in found] == odd
    assert json.loads(found[1]["list"]) == ["two\nlines"]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def chat(number: int) -> dict[str, Any]:
    """Return one of many rows that no two resemble each other."""
    word = f"{number * 7919:x}"
    return {
        "id": number,
        "messages": [
            {"role": "developer", "content": f"Rule {word}."},
            {"role": "user", "content": [{"type": "text", "text": f"What about {word} {word}?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": word}]},
            {"role": "tool", "tool_call_id": word, "content": f"found {word}"},
            {"role": "assistant", "content": f"It is {word}.", "weight": 1},
        ],
        "tools": TOOLS,
        "note": None,
    }


def test_openai_rows_survive_import_version_and_export(
    make_project: MakeProject, tmp_path: Path
) -> None:
    root = make_project({}, CHAT_CONFIG)
    rows = [chat(number) for number in range(40)]
    source = write(tmp_path / "mine.jsonl", rows)
    code, out, err = call("data", "import", str(source), "--project", str(root), "--json")
    assert code == 0, err
    assert json.loads(out)["next"] == f"tutelage data check --project {root}"
    assert load(root / "data" / "mine.jsonl") == rows
    assert call("data", "split", "--project", str(root))[0] == 0
    code, out, err = call(
        "data", "export", "--project", str(root), "-o", str(tmp_path / "out.jsonl"), "--json"
    )
    assert code == 0, err
    files = json.loads(out)["files"]
    assert list(files) == [
        str(tmp_path / f"out.{s}.jsonl") for s in ("train", "validation", "test")
    ]
    back = [row for file in files for row in load(Path(file))]
    assert [json.dumps(row) for row in sorted(back, key=lambda row: row["id"])] == [
        json.dumps(row) for row in rows
    ]


def labelled(root: Path) -> Path:
    text = "text,label,who\n" + "".join(
        f'"thing {i * 7919:x}, {i * 104729:x}",{"warm" if i % 2 else "cold"},{"p" + str(i)}\n'
        for i in range(40)
    )
    (root / "data" / "rows.csv").write_text(text)
    return root


def test_a_version_of_a_table_is_a_table_again(make_project: MakeProject, tmp_path: Path) -> None:
    root = labelled(make_project({}))
    assert call("data", "split", "--project", str(root))[0] == 0
    ctx = open_context(root)
    target = tmp_path / "all.csv"
    done = export_version(ctx, target)
    with target.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert list(found[0]) == ["text", "label", "who", "split"]
    assert {row["split"] for row in found} == {"train", "validation", "test"}
    train = tmp_path / "train.csv"
    export_version(ctx, train, Export(splits=("train",)), done.source[:6])
    assert train.read_text().splitlines()[0] == "text,label,who"
    original = (root / "data" / "rows.csv").read_text().splitlines()
    assert set(train.read_text().splitlines()) < set(original)
    pytest.importorskip("pyarrow")
    again = tmp_path / "again.csv"
    export_version(ctx, tmp_path / "train.parquet", Export(splits=("train",)))
    export_file(tmp_path / "train.parquet", again)
    assert again.read_text() == train.read_text()


def test_the_projects_prompt_can_be_put_in_front(make_project: MakeProject, tmp_path: Path) -> None:
    root = labelled(make_project({}))
    assert call("data", "split", "--project", str(root))[0] == 0
    target = tmp_path / "out.jsonl"
    arguments = ("--split", "train", "--prompt", "--bare", "-o", str(target))
    assert call("data", "export", "--project", str(root), *arguments)[0] == 0
    row = load(target)[0]
    assert list(row) == ["messages"]
    assert row["messages"][0] == {
        "role": "system", "content": "Name the colour family of the thing.",
    }  # fmt: skip
    assert row["messages"][2]["content"] in ('{"family": "warm"}', '{"family": "cold"}')
    assert call("data", "export", "--project", str(root), *arguments)[0] == 2
    assert call("data", "export", "--project", str(root), *arguments, "--force")[0] == 0


def test_parquet_keeps_turns_and_types(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    turns = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
    ]  # fmt: skip
    rows = [
        {"messages": turns, "n": 1, "x": 1.5, "ok": True, "mix": 1, "deep": {"a": [1]}},
        {"messages": turns[:2], "n": None, "x": 2, "ok": False, "mix": "two", "deep": None},
    ]
    source = write(tmp_path / "a.jsonl", rows)
    target = tmp_path / "a.parquet"
    export_file(source, target)
    table = parquet.read_table(target)
    assert table.schema.field("messages").type.value_type.num_fields == 2
    assert table.schema.field("n").type == arrow.int64()
    assert table.schema.field("x").type == arrow.float64()
    assert table.column("mix").to_pylist() == ["1", "two"]
    back = tmp_path / "b.jsonl"
    export_file(target, back)
    assert load(back)[0] == {**rows[0], "mix": "1", "deep": '{"a": [1]}'}


def test_a_csv_of_logs_is_ready_to_train_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs.csv").write_text(
        "question,output,document_log_id,tokens\nWhat is 2+2?,4,1,9\nFailed?,,2,0\n"
        "Broken,4\nAnd 3+3?,6,3,9\n"
    )
    code, out, err = call("data", "import", "logs.csv", "--output", "train.jsonl")
    assert code == 2
    assert "1 row can't be used, 2 written; first: logs.csv:4: 2 columns instead of 4" in err
    assert "logs.csv: 2 rows, Latitude logs (" in " ".join(out.split())
    assert "next: tutelage init my-domain --data train.jsonl" in " ".join(out.split())
    assert load(tmp_path / "train.jsonl")[1] == {
        "messages": [
            {"role": "user", "content": "And 3+3?"}, {"role": "assistant", "content": "6"},
        ],
        "document_log_id": "3", "tokens": "9",
    }  # fmt: skip
    left = load(tmp_path / "train.rejected.jsonl")
    assert [(row["line"], row["reason"]) for row in left] == [
        (3, "the call has no output"), (4, "2 columns instead of 4"),
    ]  # fmt: skip


def test_columns_can_be_named_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs.csv").write_text("customer,us,day\nhi,hello,1\n")
    code, _, err = call("data", "import", "logs.csv", "-o", "a.jsonl")
    assert code == 2
    assert "logs.csv:2: the only row can't be used; the first: no input found" in err
    code, _, err = call(
        "data", "import", "logs.csv", "-o", "a.jsonl", "--input", "customer", "--answer", "us"
    )
    assert code == 0, err
    assert load(tmp_path / "a.jsonl")[0]["messages"][1]["content"] == "hello"
    (tmp_path / "old.csv").write_bytes("prompt,completion\ncaf\u00e9?,oui\n".encode("cp1252"))
    assert call("data", "import", "old.csv", "-o", "b.jsonl")[0] == 2
    assert call("data", "import", "old.csv", "-o", "b.jsonl", "--encoding", "cp1252")[0] == 0
    assert load(tmp_path / "b.jsonl")[0]["messages"][0]["content"] == "caf\u00e9?"
    code, _, err = call("data", "import", "old.csv", "-o", "c.jsonl", "--encoding", "cp9999")
    assert code == 2
    assert "Traceback" not in err and "'cp9999'" in err
    code, _, err = call("data", "import", "old.csv")
    assert code == 2
    assert "or the file to write with --output FILE" in err


def test_documents_become_rows_of_raw_text(
    tmp_path: Path, make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.md").write_text("# Rules\n\nWash hands.\n")
    assert call("data", "import", "rules.md", "-o", "corpus.jsonl")[0] == 0
    row = {"text": "# Rules\n\nWash hands.", "passage": 1, "document": "rules.md"}
    assert load(tmp_path / "corpus.jsonl") == [row]
    other = open_context(make_project({}, CHAT_CONFIG))
    with pytest.raises(DataError, match=r"only where the task is text.*Set task: text"):
        import_into(other, ["rules.md"])
    text = open_context(make_project({}, "name: t\ntask: text\nmodel: demo\n"))
    assert import_into(text, ["rules.md", "corpus.jsonl"]).rows == 2


def test_an_import_refuses_what_would_be_read_or_lost(make_project: MakeProject) -> None:
    root = labelled(make_project({}))
    ctx = open_context(root)
    own = str(root / "data" / "rows.csv")
    with pytest.raises(DataError, match="reads this file already"):
        import_into(ctx, [own])
    other = root / "more.csv"
    other.write_text("text,label\nfire,warm\n")
    first = import_into(ctx, [str(other)], to="extra")
    assert (first.rows, first.rejected, first.rejected_file) == (1, 0, None)
    with pytest.raises(DataError, match=r"extra.jsonl: the file is there already.*--force"):
        import_into(ctx, [str(other)], to="extra")
    assert import_into(ctx, [str(other)], to="extra", force=True).rows == 1
    with pytest.raises(ConfigError, match="is no file name"):
        import_into(ctx, [str(other)], to="../x")
    with pytest.raises(DataError, match="there is no such file"):
        import_into(ctx, ["nowhere.csv"])


def test_imported_labels_are_the_ones_the_project_reads(make_project: MakeProject) -> None:
    root = make_project({}, BASIC_CONFIG)
    table = "text,label\n" + "".join(
        f"thing {i * 7919:x} {i * 104729:x},{'Warm' if i % 2 else 'cold'}\n" for i in range(40)
    )
    (root / "old.csv").write_text(table)
    ctx = open_context(root)
    import_into(ctx, [str(root / "old.csv")])
    assert load(root / "data" / "old.jsonl")[1]["label"] == "Warm"
    code, out, err = call("data", "split", "--project", str(root), "--json")
    assert code == 0, err
    assert json.loads(out)["labels"] == {"cold": 20, "warm": 20}


def test_without_a_usable_row_nothing_is_written_but_the_reasons(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"x": 1}, {"y": 2}])
    with pytest.raises(DataError, match=r"none of the 2 rows can be used"):
        import_files([str(source)], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert len(load(tmp_path / "out.rejected.jsonl")) == 2
    assert import_files([str(write(source, [{"prompt": "q", "completion": "a"}]))],
                        tmp_path / "out.jsonl").rows == 1  # fmt: skip
    assert not (tmp_path / "out.rejected.jsonl").exists()


KILLED = """
import sys
from pathlib import Path
from tutelage.workflows.data import files
def stop(*arguments):
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
files.openai_row = stop
files.import_files([sys.argv[1]], Path(sys.argv[2]))
"""


def test_a_killed_import_leaves_nothing_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "a"}])
    target = tmp_path / "out" / "out.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(target)], check=False)
    assert done.returncode == -9
    assert not target.exists()
    assert [path.suffix for path in target.parent.iterdir()] == [".part", ".part"]
    import_files([str(source)], target)
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


def test_what_can_not_be_exported_is_one_sentence(
    make_project: MakeProject, tmp_path: Path
) -> None:
    root = labelled(make_project({}))
    ctx = open_context(root)
    with pytest.raises(DataError, match=r"no dataset version yet.*tutelage data split"):
        export_version(ctx, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="'abcdef' is neither a file nor one dataset version"):
        export_version(ctx, tmp_path / "a.jsonl", version="abcdef")
    assert call("data", "split", "--project", str(root))[0] == 0
    with pytest.raises(ConfigError, match=r".xlsx names no format.*--format openai, csv, parquet"):
        export_version(ctx, tmp_path / "a.xlsx")
    code, _, err = call("data", "export", "--split", "trian", "--project", str(root))
    assert code == 2
    assert "'trian' is no split. Did you mean 'train'?" in err


def test_a_file_is_exported_row_by_row_and_bad_rows_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "a"}, {"x": 1}])
    done = export_file(source, tmp_path / "a.csv", reading=Reading())
    assert (done.unusable, done.files) == (1, {str(tmp_path / "a.csv"): 1})
    assert (tmp_path / "a.csv").read_text() == "prompt,completion\nq,a\n"
    with pytest.raises(ConfigError, match="only dataset versions have splits"):
        export_file(source, tmp_path / "b.csv", Export(splits=("train",)))


def test_skipped_log_entries_are_in_the_versions_dropped_rows(make_project: MakeProject) -> None:
    root = make_project({}, CHAT_CONFIG)
    base = {"traceId": "t", "startTime": "2026-01-01", "type": "GENERATION"}
    rows: list[Any] = [
        {**base, "input": f"what of {i * 7919:x} {i * 104729:x}?", "output": f"that {i * 31:x}"}
        for i in range(30)
    ]
    write(root / "data" / "traces.jsonl", [*rows, {**rows[0], "type": "SPAN"}])
    code, out, err = call("data", "split", "--project", str(root), "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["path"])
    (dropped,) = load(folder / "dropped.jsonl")
    assert dropped["reason"] == "a span, not a call of a model [D1-L01]"
    assert dropped["line"] == 31


def test_names_that_look_like_markup_are_printed_as_they_are(make_project: MakeProject) -> None:
    config = CHAT_CONFIG + 'data: {columns: {input: "[/b]", output: "[red]"}}\n'
    table = "[/b],[red]\n" + "".join(f"what of {i * 7919:x}?,that {i}\n" for i in range(20))
    root = make_project({"rows.csv": table}, config)
    code, out, err = call("data", "check", "--project", str(root))
    assert code == 0, err
    assert "([/b] → [red], as you named them)" in " ".join(out.split())
    assert "([/b] → [red], as you named them)" in err
