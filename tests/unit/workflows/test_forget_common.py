"""What many have is nobody's: a user who is forgotten takes no rows of others along."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.workflows.test_forget import Counted

import tutelage
from tutelage.core.artifact import describe
from tutelage.core.errors import Conflict, DataError
from tutelage.core.example import Example, Message, Origin, normalise
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.feedback.privacy.traces import Traces
from tutelage.inference.embed_cache import embed_cached
from tutelage.workflows.context import register
from tutelage.workflows.feedback.forget import _traces, erasures, forget, look_up

USER = "zoe.forgettable@example.org"
ANSWER = '{"intent": "card_arrival"}'
FAQ, OWN = "when will my new card be here", "the one I ordered on my birthday has not come"
UNTIDY = f" {OWN.replace('ordered', 'ordered ')}!"  # as a file has it before it is cleaned
CONFIG = """\
name: bank
task: classification
model: demo
prompt: Name the intent.
output: {field: intent, labels: [card_arrival, lost_card]}
data: {sources: [data/*]}
"""
Make = Callable[..., Path]


def chat(question: str, answer: str = ANSWER) -> dict[str, Any]:
    turns = [("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def call(number: int, user: str, text: str, answer: str = ANSWER) -> str:
    row = {"id": f"chatcmpl-{number:024x}", "prompt": text, "completion": answer, "user": user}
    return json.dumps(row) + "\n"


@pytest.fixture
def project(make_project: Make, tmp_path: Path) -> Iterator[Any]:
    chats = [chat(f"where is card {i}") for i in range(5)] + [chat(FAQ), chat(UNTIDY)]
    data = "".join(json.dumps(one) + "\n" for one in chats)
    opened = tutelage.open(make_project({"chats.jsonl": data}, CONFIG))
    log = tmp_path / "log.jsonl"
    log.write_text(call(1, USER, FAQ) + call(2, USER, OWN) + call(3, "somebody.else", FAQ))
    opened.logs.add(log)
    log.unlink()
    yield opened
    opened.close()


def questions(project: Any) -> list[str]:
    lines = (project.context.workspace.root / "data" / "chats.jsonl").read_text().splitlines()
    return [json.loads(line)["messages"][0]["content"] for line in lines]


def test_an_answer_and_a_question_of_many_take_no_rows_along(project: Any) -> None:
    before = questions(project)
    assert look_up(project.context, USER).files == {"data/chats.jsonl": 1}
    assert forget(project.context, USER).store["records"] == 2
    assert questions(project) == [text for text in before if text != UNTIDY]


def test_rows_without_an_owner_that_ask_the_same_leave_their_version(project: Any) -> None:
    ctx = project.context
    turns = [chat(f"where is card {i}")["messages"] for i in range(5)]
    turns += [chat(FAQ)["messages"], chat(OWN)["messages"]]
    rows = [Example(messages=tuple(Message(**turn) for turn in one)) for one in turns]
    draft = VersionDraft({"train": rows, "validation": [], "test": []}, {r.id: r.id for r in rows})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    register(
        ctx.store, describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    )
    (told,) = forget(ctx, USER).versions
    assert told["rows"] == {"train": 1}
    (left,) = (ctx.workspace.artifacts / "datasets").glob(f"{told['replaced_by']}*")
    assert [row.input_text for row in load_version(left).all_rows()] == [
        row.input_text for row in rows if row.input_text != OWN
    ]


def test_every_version_is_read_once_however_many_rounds_it_takes(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that name no owner lead from one version to the next."""
    from tutelage.workflows.feedback import forget_versions

    ctx = project.context
    other = "what else is there to say about all of the cards of mine"
    steps = ((FAQ, None), (f"{OWN}.", None), (other, USER), (other, None))
    folders = []
    for text, group in steps:
        turns = tuple(Message(**turn) for turn in chat(text)["messages"])
        row = Example(messages=turns, group=group)
        draft = VersionDraft({"train": [row], "validation": [], "test": []}, {row.id: row.id})
        draft.meta["created_at"] = str(len(folders))
        folders.append(write_version(ctx.workspace.artifacts / "datasets", draft).directory)
    read: list[Path] = []
    real = forget_versions.load_version
    monkeypatch.setattr(forget_versions, "load_version", lambda at: read.append(at) or real(at))
    held = forget_versions.find_held(ctx, _traces(ctx, USER))
    assert len(read) == len(set(read)) == len(set(folders))
    assert {one.folder for one in held} == set(folders[1:])


def test_what_they_corrected_of_others_goes_with_their_name(project: Any) -> None:
    ctx = project.context
    project.feedback.add(f"chatcmpl-{3:024x}", edit="lost_card", author=USER)
    turns = tuple(Message(**turn) for turn in chat("where is a card of others")["messages"])
    origin = Origin(kind="production", author=USER)
    row = Example(messages=turns, group="somebody.else", origin=origin)
    draft = VersionDraft({"train": [row], "validation": [], "test": []}, {row.id: row.id})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    register(
        ctx.store, describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    )
    assert look_up(ctx, USER).store["signals"] == 1
    (told,) = forget(ctx, USER).versions
    assert told["rows"] == {"train": 1}


def test_free_answers_that_others_got_too_take_nobody_along(project: Any) -> None:
    ctx = project.context
    log = ctx.workspace.root / "more.jsonl"
    sorry = "I am sorry, I can't help you with that."
    log.write_text(call(4, USER, OWN, sorry) + call(5, "somebody.else", "another thing", sorry))
    project.logs.add(log)
    log.unlink()
    path = ctx.workspace.root / "data" / "chats.jsonl"
    path.write_text(path.read_text() + json.dumps(chat("who are you", sorry)) + "\n")
    forget(ctx, USER)
    assert "who are you" in questions(project)


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("its nearest row is 'the \"one\" I ordered on my birth…', and 95 % are nearer", True),
        (r'[{"why": "the \"one\" I ordered on my birthday has not come"}]', True),
        ("it was: the one I ordered…, and no more", False),  # too little to tell anybody by
        ("the one I ordered on my birth…", False),  # what somebody wrote, not a quote
        ("it was: the one I ordered on my bike…, and no more", False),
    ],
)
def test_a_text_that_is_quoted_in_part_or_escaped_is_theirs(text: str, theirs: bool) -> None:
    traces = Traces("ann")
    traces.add_texts(['the "one" I ordered on my birthday has not come'])
    assert traces.in_text(text) is theirs


def test_pages_that_quote_beginnings_of_rows_go(project: Any) -> None:
    page = project.context.workspace.home / "reports" / "quality.html"
    page.parent.mkdir()
    page.write_text(f"<p>{OWN[:20]}</p>")
    assert ".tutelage/reports/quality.html" in look_up(project.context, USER).removed
    assert page.exists()
    forget(project.context, USER)
    assert not page.exists()


def test_two_at_once_do_not_get_into_each_other_s_way(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.workflows.feedback import forget as work

    real = work.find_held

    def again(*given: Any) -> Any:
        with pytest.raises(Conflict, match="another command is forgetting a user"):
            forget(project.context, "somebody.else")
        return real(*given)

    monkeypatch.setattr(work, "find_held", again)
    assert forget(project.context, USER).store["records"] == 2
    assert [one["state"] for one in erasures(project.context)] == ["done"]


def test_vectors_of_texts_in_any_form_go(project: Any, tmp_path: Path) -> None:
    home = project.context.workspace.home
    long = "My " + "very long Question " * 300
    turns = [("user", OWN), ("assistant", "which one"), ("user", long)]
    messages = [{"role": role, "content": text} for role, text in turns]
    log = tmp_path / "turns.jsonl"
    answered = [*messages, {"role": "assistant", "content": ANSWER}]
    log.write_text(json.dumps({"messages": answered, "user": USER}) + "\n")
    project.logs.add(log)
    joined = "\n".join(text for _, text in turns)
    texts = [long, long[:2000], normalise(long), joined, joined[:2000], "of somebody else"]
    embed_cached(Counted(), texts, home / "embeddings")
    assert forget(project.context, USER).vectors == 5


def test_a_list_of_texts_to_label_is_named(project: Any) -> None:
    root = project.context.workspace.root
    (root / "to-label.jsonl").write_text(json.dumps({"id": "1", "text": OWN}) + "\n")
    (root / "notes.txt").write_text("nothing of anybody")
    assert forget(project.context, USER).remains == ["to-label.jsonl (1 rows, in a file of yours)"]
    (root / "notes.txt").write_text("somebody.unknown wrote")
    with pytest.raises(DataError, match=r"nothing is known of this user but .* notes\.txt"):
        forget(project.context, "somebody.unknown")


def test_rows_in_files_that_are_not_written_are_named(project: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    data = project.context.workspace.root / "data"
    rows = {"text": [f"{OWN} {i}" for i in range(500)], "user": [USER, *["other"] * 499]}
    rows["text"][1:] = [f"something else {i}" for i in range(499)]
    parquet.write_table(pa.table(rows), data / "more.parquet", compression="zstd")
    (data / "broken.arrow").write_bytes(b"ARROW1\0\0 and no more")
    (data / "wide.jsonl").write_text(json.dumps({"text": OWN, "user": USER}), encoding="utf-16")
    remains = "\n".join(look_up(project.context, USER).remains)
    assert "data/more.parquet (1 rows, to be taken out of the file by hand)" in remains
    assert "data/wide.jsonl (can't be read: not UTF-8 text)" in remains
    assert "data/broken.arrow (can't be read: the file is not readable as Arrow" in remains
