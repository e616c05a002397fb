"""`evaluate`, `gate` and `compare` as people and pipelines see them: exit codes, files, tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.unit.workflows.test_evaluate_candidates import (
    Bench,
    right_on,
)
from tests.unit.workflows.test_evaluate_candidates import make_bench as make_bench
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.evaluation.gate_reports import as_junit, as_markdown
from tutelage.workflows.evaluation import evaluate

RUN = CliRunner()


@pytest.fixture
def bench(make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two adapters that answer 57 and 4 of 60 rows right, evaluated by the commands alone."""
    made = make_bench(aaa=right_on(57), bbb=right_on(4))
    work = evaluate.evaluate_named
    monkeypatch.setattr(
        evaluate, "evaluate_named",
        lambda ctx, names=(), *, against=None: work(
            ctx, names, against=against, open_engine=made.open
        ),
    )  # fmt: skip
    return made


def call(bench: Bench, *words: str) -> tuple[int, str]:
    result = RUN.invoke(app, [*words, "--project", str(bench.ctx.workspace.root)])
    return result.exit_code, result.output


def test_from_candidates_to_a_gate_and_a_comparison(bench: Bench, tmp_path: Path) -> None:
    code, text = call(bench, "evaluate", "aaaa", "bbbb", "--json")
    found = json.loads(text.splitlines()[-1])["evaluations"]
    assert code == 0 and [one["verdict"] for one in found] == ["pass", "fail"]

    junit, comment = tmp_path / "out" / "gate.xml", tmp_path / "out" / "gate.md"
    worse = found[1]["evaluation"]
    code, text = call(
        bench, "gate", "--evaluation", worse, "--junit", str(junit), "--markdown", str(comment)
    )
    assert code == 1 and "FAIL" in text
    root = ElementTree.parse(junit).getroot()
    assert root.get("failures") != "0" and root.find("testsuite/testcase/failure") is not None
    assert comment.read_text().startswith("### ❌ colours: fail")

    code, text = call(bench, "gate", "--json")
    assert code == 0 and json.loads(text.splitlines()[-1])["verdict"] == "pass"

    page = tmp_path / "compared.html"
    code, text = call(bench, "compare", "aaaa", "bbbb", "--rows", "--html", str(page))
    assert "aaaa is better on accuracy" in page.read_text()
    assert code == 0
    assert "aaaa is better" in " ".join(text.split()) and "better in aaaa" in text
    code, text = call(bench, "compare", "aaaa", "base", "--json")
    data = json.loads(text.splitlines()[-1])
    assert data["metrics"][0]["metric"] == "accuracy" and "changed" not in data


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("evaluate", "nobody"), "there is no candidate 'nobody'"),
        (("gate", "aaaa", "--evaluation", "abcd"), "give either a candidate or --evaluation"),
        (("gate", "--evaluation", "abcd"), "there is no evaluation 'abcd'"),
        (("compare", "aaaa", "bbbb"), "was not evaluated yet"),
    ],
)
def test_bad_input_is_one_sentence(bench: Bench, words: tuple[str, ...], sentence: str) -> None:
    code, text = call(bench, *words)
    assert code == 2 and sentence in " ".join(text.split()) and "Traceback" not in text


CRITERIA = [
    {"name": "better than base", "outcome": "pass", "sentence": "accuracy: +5 points"},
    {"name": "a | <b> & \x01 “c”", "outcome": "fail", "sentence": "1 < 2 | *no*\nreally"},
    {"name": "keeps", "outcome": "not_enough_evidence", "sentence": "n = 5"},
]


def document(outcome: str, criteria: list[dict[str, Any]]) -> dict[str, Any]:
    return {"verdict": outcome, "sentence": "So it is.", "criteria": criteria, "evaluation": "ab12"}


def test_junit_counts_what_failed_and_what_is_open() -> None:
    root = ElementTree.fromstring(as_junit(document("fail", CRITERIA), "my-domain").encode())
    suite = root.find("testsuite")
    assert suite is not None
    counts = {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure", "system-out"], ["skipped", "system-out"],
    ]  # fmt: skip
    assert cases[1].get("name") == "a | <b> & � “c”"
    assert {case.get("classname") for case in cases} == {"tutelage.gate.my-domain"}
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["verdict"] == "fail"


def test_a_verdict_without_criteria_is_one_open_case() -> None:
    root = ElementTree.fromstring(as_junit(document("not_enough_evidence", []), "x").encode())
    suite = root[0]
    assert suite.get("tests") == suite.get("skipped") == "1"


XSD = """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
 <xs:complexType name="said" mixed="true">
  <xs:attribute name="message"/><xs:attribute name="type"/>
 </xs:complexType>
 <xs:complexType name="case"><xs:sequence>
  <xs:choice minOccurs="0">
   <xs:element name="failure" type="said"/><xs:element name="skipped" type="said"/>
  </xs:choice>
  <xs:element name="system-out" type="xs:string" minOccurs="0"/>
 </xs:sequence>
  <xs:attribute name="name" use="required"/><xs:attribute name="classname" use="required"/>
  <xs:attribute name="time" type="xs:decimal"/>
 </xs:complexType>
 <xs:complexType name="property">
  <xs:attribute name="name" use="required"/><xs:attribute name="value" use="required"/>
 </xs:complexType>
 <xs:complexType name="properties"><xs:sequence>
  <xs:element name="property" type="property" maxOccurs="unbounded"/>
 </xs:sequence></xs:complexType>
 <xs:attributeGroup name="counts">
  <xs:attribute name="name" use="required"/>
  <xs:attribute name="tests" type="xs:int" use="required"/>
  <xs:attribute name="failures" type="xs:int"/><xs:attribute name="errors" type="xs:int"/>
  <xs:attribute name="time" type="xs:decimal"/>
 </xs:attributeGroup>
 <xs:complexType name="suite"><xs:sequence>
  <xs:element name="properties" type="properties" minOccurs="0"/>
  <xs:element name="testcase" type="case" maxOccurs="unbounded"/>
 </xs:sequence>
  <xs:attributeGroup ref="counts"/><xs:attribute name="skipped" type="xs:int"/>
 </xs:complexType>
 <xs:element name="testsuites"><xs:complexType><xs:sequence>
  <xs:element name="testsuite" type="suite" maxOccurs="unbounded"/>
 </xs:sequence><xs:attributeGroup ref="counts"/></xs:complexType></xs:element>
</xs:schema>
"""


@pytest.mark.parametrize("criteria", [CRITERIA, []])
def test_junit_is_what_its_readers_allow(criteria: list[dict[str, Any]]) -> None:
    """The part of the JUnit format that Jenkins' schema and pytest's own files share."""
    etree = pytest.importorskip("lxml.etree")
    schema = etree.XMLSchema(etree.fromstring(XSD))
    text = as_junit(document("not_enough_evidence", criteria), "my-domain")
    schema.assertValid(etree.fromstring(text.encode()))


def test_markdown_keeps_what_a_model_wrote_in_its_cell() -> None:
    text = as_markdown(document("fail", CRITERIA), "my-domain")
    assert text.startswith("### ❌ my-domain: fail\n\nSo it is.\n")
    assert "| ❌ | a \\| \\<b\\> & \x01 “c” | 1 \\< 2 \\| \\*no\\* really |" in text
    assert text.rstrip().endswith("Evaluation `ab12`")
