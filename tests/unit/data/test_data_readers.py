"""Every shape a row comes in is read into the right turns, and the reason for it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.config import Columns
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.readers.base import ReadResult, Rejected, Tally, read_file, read_sources
from tutelage.data.readers.shape import FORMATS, Shaper, known_format

ASK = {"role": "user", "content": "2+2?"}
TELL = {"role": "assistant", "content": "4"}


def write(path: Path, *rows: Any) -> Path:
    """Write rows as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def read(root: Path, *patterns: str, **settings: Any) -> ReadResult:
    """Read sources with no project settings but those given."""
    columns = settings.pop("columns", Columns())
    output = settings.pop("output", OutputFormat())
    return read_sources(root, list(patterns), columns, output, **settings)


def one(row: dict[str, Any], **settings: Any) -> Example:
    """Return the example of one row."""
    columns = settings.pop("columns", Columns())
    output = settings.pop("output", OutputFormat())
    return Shaper(columns, output, **settings).example(row, "x.jsonl:1")[0]


def turns(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


SIMPLE = [("user", "2+2?"), ("assistant", "4")]
SYSTEM = [("system", "Be brief."), *SIMPLE]
SHAPES: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]]]] = {
    "chat": ("OpenAI chat", {"messages": [ASK, TELL]}, SIMPLE),
    "chat as text": ("OpenAI chat", {"messages": json.dumps([ASK, TELL]), "id": 1}, SIMPLE),
    "chat with developer": (
        "OpenAI chat",
        {"messages": [{"role": "developer", "content": "Be brief."}, ASK, TELL]},
        SYSTEM,
    ),
    "chat in parts": (
        "OpenAI chat",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2+"},
                                             {"type": "text", "text": "2?"}]},
                TELL,
            ]
        },
        SIMPLE,
    ),
    "chat with a system field": (
        "OpenAI chat", {"messages": [ASK, TELL], "system": "Be brief."}, SYSTEM,
    ),
    "chat whose answer is a field": (
        "OpenAI chat", {"messages": [ASK], "response": "4"}, SIMPLE,
    ),
    "openpipe": ("OpenPipe dataset", {"messages": [ASK, TELL], "split": "TRAIN"}, SIMPLE),
    "openpipe request log": (
        "OpenPipe request logs",
        {"input": {"model": "m", "messages": [ASK]}, "tags": {},
         "output": {"choices": [{"message": TELL}]}},
        SIMPLE,
    ),
    "sharegpt": (
        "ShareGPT",
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        SIMPLE,
    ),
    "sharegpt with a system field": (
        "ShareGPT",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
        },
        SYSTEM,
    ),
    "alpaca": ("Alpaca", {"instruction": "2+2?", "input": "", "output": "4"}, SIMPLE),
    "alpaca with input": (
        "Alpaca",
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        [("user", "Add.\n\n2 and 2"), ("assistant", "4")],
    ),
    "dolly": (
        "Alpaca",
        {"instruction": "Add.", "context": "2 and 2", "response": "4", "category": "math"},
        [("user", "Add.\n\n2 and 2"), ("assistant", "4")],
    ),
    "alpaca with system and history": (
        "Alpaca",
        {"instruction": "2+2?", "output": "4", "system": "Be brief.", "history": [["1+1?", "2"]]},
        [("system", "Be brief."), ("user", "1+1?"), ("assistant", "2"), *SIMPLE],
    ),
    "prompt and completion": (
        "prompt and completion", {"prompt": "2+2?", "completion": "4"}, SIMPLE,
    ),
    "prompt and completion as turns": (
        "prompt and completion", {"prompt": [ASK], "completion": [TELL]}, SIMPLE,
    ),
    "question with context": (
        "prompt and completion",
        {"question": "Which?", "context": ["One.", "Two."], "answer": "4"},
        [("user", "Which?\n\nOne.\n\nTwo."), ("assistant", "4")],
    ),
    "openorca": (
        "prompt and completion",
        {"id": "7", "system_prompt": "Be brief.", "question": "2+2?", "response": "4"},
        SYSTEM,
    ),
    "text and label": ("text and label", {"text": "2+2?", "label": "4"}, SIMPLE),
    "preference of openai": (
        "preference pairs",
        {
            "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [TELL],
            "non_preferred_output": [{"role": "assistant", "content": "5"}],
        },
        SIMPLE,
    ),
    "preference with prompt": (
        "preference pairs", {"prompt": "2+2?", "chosen": "4", "rejected": "5"}, SIMPLE,
    ),
    "preference that repeats the conversation": (
        "preference pairs",
        {"prompt": "2+2?", "chosen": [ASK, TELL],
         "rejected": [ASK, {"role": "assistant", "content": "5"}]},
        SIMPLE,
    ),
    "stored completion": (
        "OpenAI stored completions",
        {"object": "chat.completion", "id": "c", "messages": [ASK],
         "choices": [{"index": 0, "message": TELL, "finish_reason": "stop"}]},
        SIMPLE,
    ),
    "stored completion in a log of requests": (
        "OpenAI stored completions",
        {"request": {"body": {"model": "m", "messages": [ASK]}},
         "response": {"status_code": 200, "body": {"choices": [{"message": TELL}]}}},
        SIMPLE,
    ),
    "stored completion of a lone system prompt": (
        "OpenAI stored completions",
        {"messages": [{"role": "system", "content": "2+2?"}], "choices": [{"message": TELL}]},
        SIMPLE,
    ),
    "langfuse generation": (
        "Langfuse export",
        {"id": "1", "traceId": "t", "type": "GENERATION", "startTime": "2026-01-01", "input": [ASK],
         "output": TELL, "level": "DEFAULT"},
        SIMPLE,
    ),
    "langfuse generation with messages": (
        "Langfuse export",
        {"id": "1", "traceId": "t", "type": "GENERATION", "startTime": "2026-01-01",
         "input": {"messages": [ASK], "tools": [{"type": "function"}]}, "output": "4"},
        SIMPLE,
    ),
    "langfuse trace": (
        "Langfuse export",
        {"id": "1", "timestamp": "2026-01-01", "userId": None, "sessionId": "s",
         "bookmarked": False, "input": "2+2?", "output": "4"},
        SIMPLE,
    ),
    "langfuse trace of a graph": (
        "Langfuse export",
        {"id": "1", "userId": None, "sessionId": "s", "input": {"messages": [ASK]},
         "output": {"messages": [ASK, TELL]}},
        SIMPLE,
    ),
    "langfuse from csv": (
        "Langfuse export",
        {"id": "1", "traceId": "t", "startTime": "2026-01-01", "input": json.dumps([ASK]),
         "output": '"4"'},
        SIMPLE,
    ),
    "latitude with one parameter": (
        "Latitude logs",
        {"sum": "2+2?", "output": "4", "document_log_id": "7", "tokens": "9"},
        SIMPLE,
    ),
    "latitude span with parameters": (
        "Latitude logs",
        {"a": "2", "b": "2", "output": "4", "span_id": "s", "trace_id": "t", "tokens": "9"},
        [("user", "a: 2\nb: 2"), ("assistant", "4")],
    ),
    "latitude upload": ("Latitude logs", {"messages": json.dumps([ASK, TELL])}, SIMPLE),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_known_and_read(tmp_path: Path, name: str) -> None:
    shape, row, expected = SHAPES[name]
    write(tmp_path / "rows.jsonl", row)
    result = read(tmp_path, "rows.jsonl")
    assert turns(result.examples[0]) == expected
    assert result.detected[0].startswith(f"rows.jsonl: 1 row, {shape} (")
    assert result.rejected == []


def test_every_file_says_what_it_was_taken_for_and_why(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"messages": [ASK, TELL]}, {"messages": [ASK, TELL]}, {"x": 1})
    write(tmp_path / "b.jsonl", {"text": "2+2?", "label": "4"})
    (tmp_path / "c.csv").write_text("")
    assert read(tmp_path, "*").detected == [
        "a.jsonl: 2 rows, OpenAI chat (every row has messages with roles); 1 row unusable",
        "b.jsonl: 1 row, text and label (text → label, by their names)",
        "c.csv: empty",
    ]


def test_log_entries_without_an_answered_call_are_left_out_but_not_errors(tmp_path: Path) -> None:
    base = {"traceId": "t", "startTime": "2026-01-01", "input": "q", "output": "a"}
    write(
        tmp_path / "rows.jsonl",
        {**base, "type": "GENERATION"},
        {**base, "type": "SPAN"},
        {**base, "type": "GENERATION", "level": "ERROR"},
        {**base, "type": "GENERATION", "output": None},
    )
    result = read(tmp_path, "rows.jsonl")
    assert len(result.examples) == 1
    assert result.rejected == []
    assert [row.reason for row in result.skipped] == [
        "a span, not a call of a model", "the call failed", "the call has no output",
    ]  # fmt: skip
    assert [row.source for row in result.skipped] == [f"rows.jsonl:{n}" for n in (2, 3, 4)]


def test_a_completion_without_its_question_is_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"object": "chat.completion", "choices": [{"message": TELL}]})
    with pytest.raises(DataError, match=r"request's messages are not in the row.*add them"):
        read(tmp_path, "rows.jsonl")


def test_the_rejected_answer_of_a_pair_is_kept() -> None:
    example = one({"prompt": "2+2?", "chosen": "4", "rejected": "5"})
    assert example.answer == "4"
    assert example.meta["rejected"] == "5"


def test_an_answer_with_weight_0_is_not_learnt(tmp_path: Path) -> None:
    silent = {**TELL, "weight": 0}
    write(
        tmp_path / "rows.jsonl",
        {"messages": [ASK, silent]},
        {"messages": [ASK, silent, ASK, {**TELL, "weight": 1}]},
    )
    result = read(tmp_path, "rows.jsonl")
    assert [row.finding_id for row in result.rejected] == ["D1-R09"]
    assert len(result.examples[0].messages) == 4
    assert "weight" not in (result.examples[0].messages[1].model_extra or {})


def test_named_columns_rule_and_chats_may_stand_beside_them(tmp_path: Path) -> None:
    columns = Columns(input="said", output="class")
    write(tmp_path / "a.jsonl", {"said": "hi", "class": "greeting", "prompt": "x", "output": "y"})
    write(tmp_path / "b.jsonl", {"messages": [ASK, TELL]})
    write(tmp_path / "c.jsonl", {"sayd": "hi", "class": "greeting", "prompt": "x", "output": "y"})
    result = read(tmp_path, "*", columns=columns)
    assert [turns(row)[0][1] for row in result.examples] == ["hi", "2+2?"]
    assert result.rejected[0].reason == "no field 'said', did you mean 'sayd'"


def test_labels_are_brought_into_the_projects_form() -> None:
    output = OutputFormat("intent", ("card lost", "top up"))
    row = one({"text": "where is it", "intent": "Card_Lost"}, output=output)
    assert (row.label, row.answer) == ("card lost", '{"intent": "card lost"}')
    chat = one({"messages": [ASK], "label": "top-up"}, output=output)
    assert (chat.label, chat.answer) == ("top up", '{"intent": "top up"}')
    taken = one({"text": "where is it", "intent": "Card_Lost"}, output=output, strict=False)
    assert (taken.label, taken.answer) == ("Card_Lost", "Card_Lost")


def test_a_format_can_be_asked_for(tmp_path: Path) -> None:
    row = {"input": "2+2?", "output": "4", "tokens": 3, "id": 7}
    assert turns(one(row, format="pairs")) == SIMPLE
    with pytest.raises(Exception, match="not of the format 'sharegpt'"):
        one(row, format="sharegpt")
    with pytest.raises(ConfigError, match="Did you mean 'langfuse'"):
        known_format("langfuze")
    assert all(known_format(name) == name for name in FORMATS)


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl", *({"prompt": f"q{i}", "completion": "a"} for i in range(9))
    )
    tally = Tally("rows.jsonl")
    rows = read_file(path, Shaper(Columns(), OutputFormat()), tally)
    assert isinstance(next(rows), Example)
    assert sum(tally.shapes.values()) == 1
    assert len(list(rows)) == 8


def test_a_named_folder_is_read_with_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "more" / "deeper"
    folder.mkdir(parents=True)
    write(folder / "a.jsonl", {"messages": [ASK, TELL]})
    write(tmp_path / "more" / "b.jsonl", {"messages": [ASK, TELL]})
    write(tmp_path / "more" / ".hidden.jsonl", {"broken": 1})
    (folder / "picture.png").write_bytes(b"\x89PNG")
    result = read(tmp_path, "more")
    assert len(result.examples) == 2
    assert result.detected[0] == "more/deeper/picture.png: skipped, no reader for .png"


def test_a_data_set_of_the_hub_is_imported_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tutelage data import hf:org/name"):
        read(tmp_path, "hf:org/name")


def test_real_rows_are_read(shared_data: Path) -> None:
    folder = shared_data / "banking77"
    result = read(folder, "train.csv")
    assert len(result.examples) == 10_003
    assert result.detected == [
        "train.csv: 10,003 rows, text and label (text → category, by their names)"
    ]
    columns = Columns(input="QUESTION", output="final_decision")
    papers = read(shared_data / "pubmedqa", "ori_pqal.json", columns=columns)
    assert len(papers.examples) == 1000
    assert papers.examples[0].meta["id"] == "21645374"


def test_a_rejected_row_can_always_be_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(
        json.dumps({"messages": [ASK, TELL]}).encode() + b'\n{"text": "caf\xe9", "label": "x"}\n'
    )
    result = read(tmp_path, "rows.jsonl")
    row: Rejected = result.rejected[0]
    assert row.reason == "not UTF-8 text: byte 0xe9 at column 14"
    assert row.raw.encode().startswith(b'{"text": "caf\\udce9"')
