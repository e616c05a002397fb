"""Documents become passages of raw text, and a text project is curated from them end to end."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.output import OutputFormat
from tutelage.data.readers.base import ReadResult, read_sources
from tutelage.data.readers.documents import passages

MakeProject = Callable[..., Path]
TEXT_CONFIG = "name: handbook\ntask: text\nmodel: demo\n"

_OPEN = "http://schemas.openxmlformats.org"
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_TYPES = (
    f'<?xml version="1.0"?><Types xmlns="{_OPEN}/package/2006/content-types">'
    '<Default Extension="rels" ContentType='
    '"application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/word/document.xml" ContentType="{_WORD}"/></Types>'
)
_RELS = (
    f'<?xml version="1.0"?><Relationships xmlns="{_OPEN}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OPEN}/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)


def docx(path: Path, paragraphs: list[str]) -> None:
    """Write the smallest Word file with these paragraphs."""
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    document = (
        f'<?xml version="1.0"?><w:document xmlns:w="{_OPEN}/wordprocessingml/2006/main">'
        f"<w:body>{body}</w:body></w:document>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", _TYPES)
        archive.writestr("_rels/.rels", _RELS)
        archive.writestr("word/document.xml", document)


def pdf(path: Path, pages: list[str]) -> None:
    """Write a PDF with one line of text a page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects += [
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
            f"/Contents {5 + 2 * i} 0 R>>",
            f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        ]
    text, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    path.write_text(
        f"{text}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(text)}\n%%EOF\n"
    )


def read(root: Path, *patterns: str, task: str = "text") -> ReadResult:
    return read_sources(root, list(patterns), Columns(), OutputFormat(), task)  # type: ignore[arg-type]


def test_passages_are_whole_paragraphs_where_they_fit() -> None:
    found = list(passages(["a" * 30, "b" * 30, "# Heading", "c" * 50], limit=75))
    assert found == ["a" * 30 + "\n\n" + "b" * 30, "# Heading\n\n" + "c" * 50]


@pytest.mark.parametrize("text", ["word " * 60, "A sentence here. " * 20, "line\n" * 60, "x" * 300])
def test_a_long_paragraph_is_cut_and_nothing_is_lost(text: str) -> None:
    found = list(passages([text], limit=100))
    assert all(len(passage) <= 100 for passage in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert len(found) < 7


def test_text_and_markdown_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One\n\nFirst *part*.\n\nSecond part.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("caf\u00e9\r\n".encode("utf-16"))
    result = read(tmp_path, "*")
    assert [row.answer for row in result.examples] == [
        "# One\n\nFirst *part*.\n\nSecond part.", "caf\u00e9",
    ]  # fmt: skip
    assert all(row.is_text and row.label is None for row in result.examples)
    assert [row.group for row in result.examples] == ["a.md", "b.txt"]
    assert result.examples[0].meta == {"document": "a.md", "passage": 1}
    assert result.detected[0] == "a.md: 1 row, raw text (the task is text, and every row has text)"


def test_many_documents_of_a_pattern_are_told_in_one_line(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text(f"Text of document {name}.")
    (tmp_path / "e.txt").write_bytes(b"Some text.\n\nbad \xff byte\n")
    result = read(tmp_path, "*.txt")
    assert result.detected == [
        "*.txt: 4 files: 4 rows, raw text (the task is text, and every row has text)",
        "e.txt: 1 row unusable",
    ]
    (tmp_path / "d.txt").unlink()
    assert [line[:6] for line in read(tmp_path, "*.txt").detected] == [
        "a.txt:", "b.txt:", "c.txt:", "e.txt:",
    ]  # fmt: skip


def test_word_pdf_and_html_are_converted(tmp_path: Path) -> None:
    pytest.importorskip("markitdown")
    docx(tmp_path / "a.docx", ["The ward round is at eight.", "Bring the charts."])
    pdf(tmp_path / "b.pdf", ["Dose is 5 mg daily.", "Second page here."])
    (tmp_path / "c.html").write_text(
        "<html><head><style>p{}</style></head><body><h1>Rules</h1><p>Wash hands.</p></body></html>"
    )
    texts = {row.group: row.answer for row in read(tmp_path, "*").examples}
    assert texts["a.docx"] == "The ward round is at eight.\n\nBring the charts."
    assert "Dose is 5 mg daily." in str(texts["b.pdf"])
    assert "Second page here." in str(texts["b.pdf"])
    assert texts["c.html"] == "# Rules\n\nWash hands."


def test_a_damaged_document_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    pytest.importorskip("markitdown")
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 not a document")
    pdf(tmp_path / "b.pdf", [""])
    (tmp_path / "c.txt").write_bytes(b"Some text.\n\nbad \xff byte\n")
    (tmp_path / "d.txt").write_text("More text.")
    result = read(tmp_path, "*")
    assert [row.answer for row in result.examples] == ["More text."]
    found = {row.source: row.reason for row in result.rejected}
    assert found["a.docx"].startswith("the document can't be read (")
    assert found["b.pdf"] == "the document holds no text (scanned pages?)"
    assert found["c.txt#1"] == "not UTF-8 text: byte 0xff"


def test_documents_are_for_text_projects_alone(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("About the rows.")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "q", "completion": "a"}\n')
    result = read(tmp_path, "*", task="generation")
    assert len(result.examples) == 1
    assert result.detected[0] == (
        "readme.md: skipped, documents are read as raw text, and only where the task is text"
    )
    with pytest.raises(DataError, match=r"readme.md: documents are read as raw text.*task: text"):
        read(tmp_path, "readme.md", task="generation")


def test_the_passages_of_an_only_document_are_split(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i}. " + "Words and more words. " * 60 for i in range(12))
    (tmp_path / "a.txt").write_text(text)
    result = read(tmp_path, "a.txt")
    assert len(result.examples) > 3
    assert {row.group for row in result.examples} == {None}
    assert result.detected[-1] == "a.txt: the only document, so its passages are split"


SUBJECTS = ("fever", "asthma", "wounds", "diet", "sleep", "scans", "blood", "bones", "skin", "eyes",
            "ears", "teeth", "lungs", "heart")  # fmt: skip


def curate(root: Path, *command: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["data", *command, "--project", str(root), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_a_text_project_is_curated_from_documents(make_project: MakeProject) -> None:
    pytest.importorskip("markitdown")
    root = make_project({}, TEXT_CONFIG)
    draw = random.Random(7)
    for number, subject in enumerate(SUBJECTS):
        words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(300)]
        sentences = [f"{subject} {' '.join(draw.sample(words, 12))}" for _ in range(60)]
        parts = [". ".join(sentences[:30]) + ".", ". ".join(sentences[30:]) + "."]
        if number % 2:
            docx(root / "data" / f"{subject}.docx", parts)
        else:
            (root / "data" / f"{subject}.txt").write_text("\n\n".join(parts))
    rows = [{"text": f"A note about {subject}, kept as a row."} for subject in SUBJECTS[:3]]
    (root / "data" / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = curate(root, "split")
    assert sum(report["counts"].values()) > 28
    assert report["quarantined"] == 0
    sides: dict[str, set[str]] = {}
    folder = Path(report["path"])
    for split in ("train", "validation", "test"):
        found = [json.loads(x) for x in (folder / f"{split}.jsonl").read_text().splitlines()]
        assert found
        for row in found:
            assert [turn["role"] for turn in row["messages"]] == ["assistant"]
            sides.setdefault(row.get("group", row["id"]), set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert len(sides) == len(SUBJECTS) + 3
    findings = {
        entry["id"] for entry in json.loads((folder / "manifest.json").read_text())["findings"]
    }
    assert not findings & {"D2-S03", "D2-S04", "D2-C01", "D2-C08", "D4-K01"}
