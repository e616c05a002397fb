"""The verdict for a pipeline: JUnit XML that CI systems read, Markdown for a comment.

JUnit as Jenkins, GitLab and GitHub's test reporters take it: one testcase a criterion, `failure`
for a fail, `skipped` for not enough evidence, which neither passed nor failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

_WORDS = {"pass": "pass", "fail": "fail", "not_enough_evidence": "not enough evidence"}
_MARK = {"pass": "✅", "fail": "❌", "not_enough_evidence": "❔"}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def as_junit(document: Mapping[str, Any], project: str) -> str:
    """Return the verdict as one JUnit test suite.

    `document` has verdict, sentence, criteria (name, outcome, sentence) and evaluation. A verdict
    without criteria is one skipped testcase.
    """
    criteria = list(document["criteria"]) or [
        {"name": "verdict", "outcome": document["verdict"], "sentence": document["sentence"]}
    ]
    outcomes = [c["outcome"] for c in criteria]
    counts = {
        "tests": str(len(criteria)),
        "failures": str(outcomes.count("fail")),
        "errors": "0",
        "time": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "tutelage gate", **counts})
    skipped = str(outcomes.count("not_enough_evidence"))
    about = {"name": _clean(project), **counts, "skipped": skipped}
    suite = ElementTree.SubElement(root, "testsuite", about)
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("verdict", "sentence", "evaluation"):
        value = _clean(str(document.get(name, "")))
        ElementTree.SubElement(properties, "property", {"name": name, "value": value})
    for criterion in criteria:
        _testcase(suite, criterion, project)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _testcase(suite: ElementTree.Element, criterion: Mapping[str, Any], project: str) -> None:
    name, sentence = _clean(criterion["name"]), _clean(criterion["sentence"])
    about = {"name": name, "classname": f"tutelage.gate.{_clean(project)}", "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", about)
    if criterion["outcome"] == "fail":
        failure = {"message": sentence, "type": "criterion"}
        ElementTree.SubElement(case, "failure", failure).text = sentence
    elif criterion["outcome"] == "not_enough_evidence":
        message = f"not enough evidence: {sentence}"
        ElementTree.SubElement(case, "skipped", {"message": message})
    ElementTree.SubElement(case, "system-out").text = sentence


def _clean(text: str) -> str:
    return _NO_XML.sub("�", text)


def as_markdown(document: Mapping[str, Any], project: str) -> str:
    """Return the verdict as Markdown: the sentence, then a table with a row a criterion."""
    outcome = document["verdict"]
    lines = [
        f"### {_MARK[outcome]} {_cell(project)}: {_WORDS[outcome]}",
        "",
        _cell(document["sentence"]),
        "",
    ]
    if document["criteria"]:
        lines += ["| | criterion | what was found |", "|---|---|---|"]
        lines += [
            f"| {_MARK[c['outcome']]} | {_cell(c['name'])} | {_cell(c['sentence'])} |"
            for c in document["criteria"]
        ]
        lines.append("")
    if document.get("evaluation"):
        lines.append(f"Evaluation `{document['evaluation']}`")
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Return text that stays in its cell and is no markup."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_|<>\[\]#@])", r"\\\1", flat)
