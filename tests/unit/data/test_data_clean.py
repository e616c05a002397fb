"""Cleaning changes how a row is written, never what it means, and says what it changed."""

from __future__ import annotations

import ast
import json

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.config import Task
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.clean import AnswerFormat, CleanStep
from tutelage.data.normalise.code import strip_fence, tidy_code
from tutelage.data.normalise.json_text import normalise_json
from tutelage.data.normalise.label import fold, spellings
from tutelage.data.normalise.sql import looks_like_sql, normalise_sql
from tutelage.data.normalise.text import _CAREFUL, repair, tidy_text

QUICK = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def row(text: str, answer: str) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, origin=Origin(source="data/rows.jsonl:3"))


def cleaned(
    answer: str, task: Task = "generation", answers: AnswerFormat = "auto"
) -> tuple[str, list[str]]:
    step = CleanStep(task, OutputFormat(), answers)
    done = step.run([row("Please do it.", answer)])
    assert all(f.where == "data/rows.jsonl:3" and f.example for f in done.findings)
    return done.kept[0].answer or "", [f.id for f in done.findings]


@pytest.mark.parametrize(
    ("answer", "wanted", "notes"),
    [
        ("The cafÃ© is open.", "The café is open.", ["D3-U01"]),
        ("e\u0301te\u0301", "été", ["D3-U01"]),
        ("a\x00b\x07c", "abc", ["D3-U01"]),
        ("one\r\ntwo\rthree", "one\ntwo\nthree", ["D3-U01"]),
        ("  two  spaces and a tail  ", "two spaces and a tail", ["D3-W01"]),
        ("one\n\n\n\ntwo", "one\n\ntwo", ["D3-W01"]),
        ("no\u00a0break", "no break", ["D3-W01"]),
        ("“curly” ﬁ ligature &amp; ｗｉｄｅ", "“curly” ﬁ ligature &amp; ｗｉｄｅ", []),
        ("- a\n  - indented", "- a\n  - indented", []),
    ],
)
def test_prose_is_repaired_and_tidied(answer: str, wanted: str, notes: list[str]) -> None:
    assert cleaned(answer) == (wanted, notes)


def test_columns_and_code_in_prose_keep_their_spaces() -> None:
    table = "name      dose   freq\naspirin   100    daily\nibuprofen        weekly"
    assert tidy_text(table) == table
    code = "Use this:\n```python\nx   = 1  # aligned\n\n\n\ny = 2\n```\nand  then   go."
    assert tidy_text(code) == code.replace("and  then   go.", "and then go.")


def test_tidying_is_quick_where_space_is_long() -> None:
    assert tidy_text("a" + " " * 200_000 + "b" + " \t" * 100_000) == "a b"


TEXTS = st.text(
    st.sampled_from("ab Ã©â€œÂ\u00a0é“”—\u2028\x85\x1b[\x00\ufeff\u0301ж日\r\n\t")
    | st.characters(),
    max_size=40,
)


@QUICK
@given(TEXTS)
def test_the_short_cut_repairs_what_ftfy_would(text: str) -> None:
    assert repair(text) == ftfy.fix_text(text, _CAREFUL)


@QUICK
@given(TEXTS, st.sampled_from(["generation", "code", "classification"]))
def test_cleaning_twice_changes_nothing_more(text: str, task: Task) -> None:
    step = CleanStep(task)
    once, _ = step.clean(row(text, text))
    twice, notes = step.clean(once)
    assert (twice, notes) == (once, {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a":1,\n  "b" : [1,2]}', '{"a": 1, "b": [1, 2]}'),
        ('{"name": "\\u00e9"}', '{"name": "é"}'),
        ('```json\n{"a":1}\n```', '{"a": 1}'),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),  # a name twice: parsers differ
        ('{"a":0.1000000000000000055511151231257827}',) * 2,  # a float would lose digits
        ('{"a":1e999}',) * 2,
        ('{"a":"\\ud800"}',) * 2,  # half a character can't be written
        ('{"a":1,}',) * 2,
        ("not JSON",) * 2,
    ],
)
def test_json_is_written_in_one_format_or_left(text: str, wanted: str) -> None:
    assert normalise_json(text) == wanted
    assert normalise_json(wanted) == wanted


def test_deep_json_is_left() -> None:
    deep = '{"a":' * 100_000
    assert normalise_json(deep) == deep


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "select a,  b from t  where x = 'it''s  from'   and y in (select z from q)",
            "SELECT a, b FROM t WHERE x = 'it''s  from' AND y IN (SELECT z FROM q)",
        ),
        ("select t.order, u.from from t", "SELECT t.order, u.from FROM t"),
        ('select "group  by" from `order`', 'SELECT "group  by" FROM `order`'),
        ("select 1 -- from  here\n  from t  ", "SELECT 1 -- from  here\n  FROM t"),
        ("select /* from  t */ a from t", "SELECT /* from  t */ a FROM t"),
        ("select a from t left outer join u on t.i = u.i limit 5",
         "SELECT a FROM t LEFT OUTER JOIN u ON t.i = u.i LIMIT 5"),
        ("select left(name, 3), values_ from t", "SELECT left(name, 3), values_ FROM t"),
        ("select case when a then b end as end_time from t",
         "SELECT CASE WHEN a THEN b END AS end_time FROM t"),
        ("update t set a = 1", "UPDATE t SET a = 1"),
        ("insert into t values (1)", "INSERT INTO t VALUES (1)"),
        ("select {{ from  x }} from t", "SELECT {{ from  x }} FROM t"),
        ("select $$ from  t $$ from t", "SELECT $$ from  t $$ FROM t"),
        ("select 'it\\'s' from t",) * 2,  # an escape, or the end: databases differ
        ("select 'open from t",) * 2,
        ("select a from t where b = 5--3 'x'",) * 2,
        ("select /* a /* b */ from t",) * 2,
    ],
)  # fmt: skip
def test_sql_is_written_in_one_format_or_left(text: str, wanted: str) -> None:
    assert normalise_sql(text) == wanted
    assert normalise_sql(wanted) == wanted


SQL = st.lists(
    st.sampled_from([
        "select", "FROM", "where", "and", "a", "t.b", "1", "'x  y'", '"q  z"', "`k`", "(", ")", ",",
        " ", "  ", "\n", "\t", "--c  d\n", "/* e  f */", "=", "order", "by", "limit", "5", "'",
        "$$", "{{ v }}", ":p", "[i  j]", "#", ";", "left", "join", "on", "case", "end",
    ]),
    max_size=25,
)  # fmt: skip


@QUICK
@given(SQL)
def test_sql_keeps_every_character_but_case_and_space(pieces: list[str]) -> None:
    text = "".join(pieces)
    new = normalise_sql(text)
    assert "".join(new.split()).lower() == "".join(text.split()).lower()
    for kept in ("'x  y'", '"q  z"', "{{ v }}", "[i  j]", "/* e  f */"):
        assert new.count(kept) == text.count(kept)
    assert normalise_sql(new) == new


def test_what_starts_like_sql() -> None:
    for text in ("select * from t", "WITH x AS (SELECT 1) SELECT 2", "-- note\nselect 1 from t",
                 "create table t (a int)", "delete from t"):  # fmt: skip
        assert looks_like_sql(text)
    for text in ("with open(name) as f:\n    pass", "select {\ncase x := <-c:\n}", "delete x;",
                 "update(5)", "def select(): ..."):  # fmt: skip
        assert not looks_like_sql(text)


@pytest.mark.parametrize(
    ("answer", "wanted", "notes"),
    [
        ("```python\ndef f():\n\treturn 1  \n```", "def f():\n    return 1", ["D3-F01", "D3-W01"]),
        ("```sql\nselect  1 from t\n```", "SELECT 1 FROM t", ["D3-F01", "D3-Q01"]),
        ("select  1 from t", "SELECT 1 FROM t", ["D3-Q01"]),
        ("Here:\n```py\nx\n```", "Here:\n```py\nx\n```", []),
        ("    indented = 1\n", "    indented = 1", ["D3-W01"]),
        ("func main() {\n\tgo()  \n}", "func main() {\n\tgo()\n}", ["D3-W01"]),
        ("all:\n\tcc x.c", "all:\n\tcc x.c", []),
        ('s = """a  \nb"""', 's = """a  \nb"""', []),
        ("const s = `a  \nb`", "const s = `a  \nb`", []),
        ('print("e\u0301 Ã©")', 'print("e\u0301 Ã©")', []),  # a text in code is the program's own
    ],
)
def test_code_answers(answer: str, wanted: str, notes: list[str]) -> None:
    assert cleaned(answer, "code") == (wanted, notes)


def test_a_fence_that_holds_others_stays() -> None:
    text = "```md\nuse\n```py\nx\n```\n```"
    assert strip_fence(text) == (text, "")


@QUICK
@given(st.lists(st.sampled_from(
    ["def f():", "\treturn 1", "    x = 1", "  ", "y = 'a  '", '"""', "a\t", "", "if x:", "\\"]
), max_size=8))  # fmt: skip
def test_python_stays_the_same_program(lines: list[str]) -> None:
    text = "\n".join(lines)
    new = tidy_code(text)
    assert tidy_code(new) == new
    try:
        tree = ast.dump(ast.parse(text))
    except SyntaxError:
        return
    assert ast.dump(ast.parse(new)) == tree


def test_the_setting_overrides_the_task() -> None:
    assert cleaned("select  1 from t", "generation", "sql")[0] == "SELECT 1 FROM t"
    assert cleaned('{"a":1}', "generation", "json")[0] == '{"a": 1}'
    assert cleaned('{"a":1}', "extraction", "text")[0] == '{"a":1}'
    assert cleaned('{"a":1}', "extraction")[0] == '{"a": 1}'


def test_a_row_that_is_clean_stays_the_same_object() -> None:
    clean = row("Is it open?", json.dumps({"open": True}))
    assert CleanStep("extraction").run([clean]).kept[0] is clean


def test_spellings_of_a_label() -> None:
    assert fold(" Card-Arrival. ") == fold("card_arrival") == "card arrival"
    assert fold("“warm”") == fold("warm")
    counts = {"Card arrival": 9, "card_arrival": 2, "lost": 4, "A": 3, "a": 9, "absorption": 5,
              "adsorption": 1, "even": 2, "Even": 2}  # fmt: skip
    assert spellings(counts) == {"card_arrival": "Card arrival"}
