"""The model card: README.md of a release and of every export, written from the evidence alone.

It renders facts that were gathered elsewhere (release_card.py). What is not known is
said to be unknown or left out; no path of this machine is written, nothing is claimed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CARD = "README.md"
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@-]+){2,}")
_VERDICTS = {
    "pass": "passed its gate",
    "fail": "failed its gate",
    "not_enough_evidence": "was evaluated, without enough evidence for a verdict",
}
_HF_TASKS = {"classification": "text-classification", "summarization": "summarization"}
_KINDS = {"tuned": "tuned here", "imported": "tuned elsewhere and imported", "base": "not tuned"}


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model. Everything optional is left out of the card when empty.

    `evaluation` is evaluation.json as kept, `data` counts and checks of the dataset version,
    `training` the plan's choices and what the run came to, `export` format, files and parity.
    """

    name: str
    project: str
    task: str
    kind: str  # base, tuned, imported
    base: Mapping[str, Any]  # name, digest; hub, licence where known
    prompt: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)  # field, labels, json_schema
    adapter: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    export: Mapping[str, Any] | None = None


def render(facts: CardFacts) -> str:
    """Return the whole card: YAML front matter as Hugging Face reads it, then the text."""
    import yaml

    head = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=100)
    told = [_intended, _evaluation, _limits, _training, _data, _origin]
    parts = [
        f"---\n{head}---\n",
        f"# {facts.name}\n",
        f"{summary(facts)}\n",
        _use(facts),
        *(without_paths(section(facts)) for section in told),
    ]
    return "\n".join(part for part in parts if part)


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata block; a field that is not known is not there."""
    found: dict[str, Any] = {}
    if facts.base.get("hub"):
        found["base_model"] = facts.base["hub"]
    found["library_name"] = (facts.export or {}).get("library") or "peft"
    if facts.kind == "base":
        found["library_name"] = (facts.export or {}).get("library") or "transformers"
    found["pipeline_tag"] = "text-generation"
    found["tags"] = ["tutelage", facts.task, facts.kind]
    results = _results(facts)
    if results:
        found["model-index"] = [{"name": facts.name, "results": results}]
    return found


def summary(facts: CardFacts) -> str:
    """Return what it is and what the evidence says, in two or three sentences."""
    base = facts.base["name"]
    what = {
        "base": f"{base} as it came, with the system message of the project {facts.project}.",
        "imported": f"A model tuned elsewhere from {base}, for the project {facts.project}.",
    }.get(facts.kind, f"{base}, tuned for the project {facts.project} ({facts.task}).")
    verdict = (facts.evaluation or {}).get("verdict") or {}
    if not verdict:
        return f"{what} It has not been evaluated."
    did = _VERDICTS.get(str(verdict.get("outcome")), "was evaluated")
    forced = facts.lineage.get("release") and verdict.get("outcome") != "pass"
    by_force = " It was released by force." if forced else ""
    return f"{what} It {did}: {str(verdict.get('sentence', '')).rstrip('.')}.{by_force}"


def without_paths(text: str) -> str:
    """Return the text with every path of a machine cut down to its last part."""
    return _PATH.sub(lambda found: re.split(r"[/\\]", found.group())[-1], text)


def _results(facts: CardFacts) -> list[dict[str, Any]]:
    tuned = _candidate(facts)
    if tuned is None or facts.evaluation is None:
        return []
    metrics = [
        {"type": name, "value": round(float(value["estimate"]), 4)}
        for name, value in tuned["metrics"].items()
        if value.get("estimate") is not None
    ]
    task = {"type": _HF_TASKS.get(facts.task, "text-generation")}
    data = {"type": facts.project, "name": f"{facts.project}, held-out test rows", "split": "test"}
    return [{"task": task, "dataset": data, "metrics": metrics}] if metrics else []


def _candidate(facts: CardFacts) -> Mapping[str, Any] | None:
    known = {c["name"]: c for c in (facts.evaluation or {}).get("candidates", ())}
    return known.get("tuned") or known.get("base")


def _use(facts: CardFacts) -> str:
    lines = ["## Use", ""]
    export = facts.export
    if export:
        lines += [str(export["use"]), ""]
    else:
        lines += ["Serve it with `tutelage up`; clients speak OpenAI's API.", ""]
    if facts.prompt:
        quoted = [f"> {line}".rstrip() for line in facts.prompt.splitlines()]
        lines += ["It expects this system message:", "", *quoted, ""]
    shape = facts.answer
    if shape.get("field"):
        lines += [f"Answers are JSON with one field, `{shape['field']}`.", ""]
    if shape.get("labels"):
        lines += ["Labels: " + ", ".join(f"`{label}`" for label in shape["labels"]) + ".", ""]
    if export and export.get("parity"):
        lines += [f"Checked before it was written: {export['parity']}.", ""]
    return "\n".join(lines)


def _intended(facts: CardFacts) -> str:
    text = (
        f"One task: {facts.task}, for inputs like those of the project {facts.project}, with the "
        "system message above and answers as short as the training answers. Any other use was "
        "not evaluated."
    )
    return f"## Intended use\n\n{text}\n"


def _evaluation(facts: CardFacts) -> str:
    document = facts.evaluation
    if not document:
        return "## Evaluation\n\nNone. Nothing is known of how well it answers.\n"
    primary = document.get("primary") or {}
    level = f"{float(primary.get('confidence') or 0.95) * 100:g} %"
    lines = [
        "## Evaluation",
        "",
        f"{document.get('rows', 'The')} held-out test rows, greedy decoding. In brackets {level} "
        "intervals.",
        "",
    ]
    lines += _score_table(document)
    lines += ["", "What decided:", ""]
    lines += [
        f"- **{c['outcome'].replace('_', ' ')}**: {c['sentence']}"
        for c in (document.get("verdict") or {}).get("criteria", ())
    ] or ["- no criterion was set"]
    lines += _forgetting(document.get("forgetting"), level)
    return "\n".join([*lines, ""])


def _score_table(document: Mapping[str, Any]) -> list[str]:
    candidates = document.get("candidates", ())
    metrics = list(dict.fromkeys(name for c in candidates for name in c["metrics"]))
    rows = [
        [c.get("title", c["name"]), *(_interval(c["metrics"].get(name)) for name in metrics)]
        for c in candidates
    ]
    return _table(["", *metrics], rows)


def _forgetting(found: Mapping[str, Any] | None, level: str) -> list[str]:
    if not found:
        return ["", "What was forgotten was not measured."]
    lines = ["", f"What was forgotten, base and then tuned ({level} intervals):", ""]
    rows = [_lost("general questions", found)] if found.get("base_chance") is not None else []
    rows += [_lost(str(own.get("name")), own) for own in found.get("own") or ()]
    if found.get("base_perplexity") is not None:
        ratio = _interval(found.get("perplexity_ratio"))
        rows.append(
            ["perplexity of general English", _plain(found["base_perplexity"]),
             _plain(found.get("tuned_perplexity")), f"× {ratio}"]
        )  # fmt: skip
    if found.get("kl"):
        rows.append(["divergence from the base, nats a token", "", "", _interval(found["kl"])])
    return lines + _table(["", "base", "this model", "change"], rows)


def _lost(name: str, found: Mapping[str, Any]) -> list[str]:
    """Return one row: the chance of the right answer, which the gate reads, and its drop."""
    return [
        f"{name}, chance of the right answer",
        _plain(found.get("base_chance")),
        _plain(found.get("tuned_chance")),
        f"drop of {_interval(found.get('chance_drop'))}",
    ]


def _limits(facts: CardFacts) -> str:
    found = []
    document = facts.evaluation
    if document:
        found += [f"- {note}" for note in document.get("notes", ())]
        for one in document.get("comparisons", ()):
            if one["other"] == (document.get("primary") or {}).get("against"):
                found.append(
                    f"- With {one['n']} test rows, differences under "
                    f"{float(one['detectable']) * 100:.0f} points can't be told from chance."
                )
    if facts.kind == "imported":
        found.append("- It was tuned elsewhere: which rows it has seen is not known, and test "
                     "rows may be among them.")  # fmt: skip
    found.append("- Safety, bias and languages were not evaluated beyond what is listed above.")
    return "\n".join(["## Limits", "", *found, ""])


def _training(facts: CardFacts) -> str:
    made = facts.training
    if not made:
        return ""
    lines = ["## Training", ""]
    if made.get("headline"):
        lines += [f"{made['headline']}", ""]
    if made.get("summary"):
        lines += [f"The run: {made['summary']}.", ""]
    rows = [
        [f"{c['name']}", f"{c['value']}", f"{c['reason']}", f"{c.get('source', '')}"]
        for c in made.get("choices", ())
    ]
    return "\n".join([*lines, *_table(["setting", "value", "why", "source"], rows), ""])


def _data(facts: CardFacts) -> str:
    data = facts.data
    if not data:
        return "## Data\n\nWhich rows it was trained on is not known.\n"
    counts = ", ".join(f"{count:,} {side}" for side, count in data["counts"].items())
    lines = ["## Data", "", f"{counts} rows from {data['files']} files."]
    if data.get("origins"):
        lines.append("Train rows by origin: " + _counted(data["origins"]) + ".")
    if data.get("annotators"):
        lines.append(f"{data['annotators']} people labelled or decided rows.")
    if data.get("leak"):
        lines.append(f"Leak certificate: {data['leak']}.")
    lines.append(f"Licence of the rows: {data.get('licence') or 'not recorded'}.")
    return "\n".join([*lines, ""])


def _origin(facts: CardFacts) -> str:
    base = facts.base
    rows = [["base model", f"{base['name']}, SHA-256 `{base['digest']}`"]]
    if base.get("licence"):
        rows.append(["licence of the base", f"{base['licence']}, as its own files say"])
    rows += [[name, f"`{digest}`"] for name, digest in facts.lineage.items() if digest]
    rows.append(["origin", _KINDS.get(facts.kind, facts.kind)])
    export = facts.export or {}
    rows += [[name, str(export[name])] for name in ("format", "weights") if export.get(name)]
    if facts.versions:
        rows.append(["made with", ", ".join(f"{k} {v}" for k, v in facts.versions.items())])
    text = "This card was written from the evidence kept with the model, by the program."
    return "\n".join(["## Where it comes from", "", *_table(["", ""], rows), "", text, ""])


def _interval(value: Mapping[str, Any] | None) -> str:
    if not value or value.get("estimate") is None:
        return "–"
    low, high = value.get("low"), value.get("high")
    shown = f"{value['estimate']:.3f}"
    return shown if low is None or high is None else f"{shown} [{low:.3f}, {high:.3f}]"


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else "–"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(headers)} |", f"|{'---|' * len(headers)}"]
    return lines + [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
