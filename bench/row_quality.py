"""Outliers, label errors and the best rows, on real rows with faults planted in them.

Banking77's train file with 50 strangers and 100 labels flipped to any other class (tests/planted);
and once more with 100 labels flipped to one of the three most similar classes. Counted are the
strangers among the 100 most unusual rows, and the flips among the 150 most doubtful labels. The
peers get our vectors: scikit-learn's LocalOutlierFactor and IsolationForest; and for labels the
usual recipe, cross-validated logistic regression ranked by cleanlab's self-confidence and its
normalized margin (if cleanlab is installed, else the same two formulas). The best n rows are held
against n random ones and the n with the highest score, by the accuracy of one classifier on the
official test file. `--large` measures 100,000 made rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # tests.planted
DATA = ROOT.parent / "shared" / "data"
FLIPS, TOP_FLIPS, TOP_OUTLIERS = 100, 150, 100
SIZES = (800, 1500, 3000, 5000, 8000)


def main() -> None:
    """Parse the arguments, run the workers, print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two seeds, no peers")
    parser.add_argument("--large", action="store_true", help="100,000 rows too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps({"ours": ours, "peers": peers, "best": best, "large": large}[
            asked.worker](asked.seed)))  # fmt: skip
        return
    seeds = range(1, (2 if asked.quick else asked.seeds) + 1)
    jobs = [("ours", seed) for seed in seeds] + [("best", seed) for seed in list(seeds)[:2]]
    jobs += [] if asked.quick else [("peers", 1)]
    jobs += [("large", 1)] if asked.large else []
    found: dict[str, list[dict[str, Any]]] = {}
    for name, seed in jobs:
        arguments = ["--worker", name, "--seed", str(seed)]
        value = common.child(__file__, arguments, threads=2)
        found.setdefault(name, []).extend(value["rows"])
    mine = found["ours"]
    headline = {
        "outliers_of_50": min(row["outliers"] for row in mine),
        "flips_of_100": min(row["flips"] for row in mine),
        "similar_flips_of_100": min(row["similar_flips"] for row in mine),
        "cpu_outliers": max(row["cpu_outliers"] for row in mine),
        "cpu_all": max(row["cpu_all"] for row in mine),
        "peak_mb": max(row["peak_mb"] for row in mine),
    }
    if asked.json:
        rows = [{"table": name, **row} for name, part in found.items() for row in part]
        print(json.dumps({"name": "row_quality", "machine": common.machine(), "rows": rows,
                          "headline": headline}))  # fmt: skip
        return
    for name, part in found.items():
        print(f"\n{name}")
        print(common.table(part))


def planted(seed: int, similar: bool = False) -> tuple[list[Any], list[str], Any]:
    """Return the rows without exact copies, what was planted in each, and the clusters."""
    from tests.planted import plant, read_banking77

    from tutelage.core.example import Example, Message, Origin
    from tutelage.data.assign import cluster_rows
    from tutelage.data.dedup.exact import ExactDuplicates

    clean = read_banking77(DATA)
    if similar:
        clean, flipped = flip_to_similar(clean, seed)
        rows, kinds = clean, ["flip" if i in flipped else "" for i in range(len(clean))]
    else:
        strangers = (DATA / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
        made = plant(clean, seed, strangers)
        rows = made.rows
        kinds = [
            "flip" if i in made.flips else "outlier" if i in made.outliers else ""
            for i in range(len(rows))
        ]
    examples = [
        Example(
            messages=(Message(role="user", content=text), Message(role="assistant", content=label)),
            label=label,
            origin=Origin(source=str(i)),
        )
        for i, (text, label) in enumerate(rows)
    ]
    kept = ExactDuplicates().run(examples).kept
    return kept, [kinds[int(row.origin.source)] for row in kept], cluster_rows(kept)


def flip_to_similar(rows: list[tuple[str, str]], seed: int) -> tuple[list[Any], set[int]]:
    """Return the rows with 100 labels changed to one of the three most similar classes."""
    from tutelage.inference.tfidf_embed import TfidfEmbedder

    labels = sorted({label for _, label in rows})
    given = np.array([labels.index(label) for _, label in rows])
    vectors = TfidfEmbedder().embed([text for text, _ in rows])
    means = np.stack([vectors[given == k].mean(axis=0) for k in range(len(labels))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    close = np.argsort(-(means @ means.T), axis=1)[:, 1:4]
    rng = random.Random(seed)
    flipped = set(rng.sample(range(len(rows)), FLIPS))
    changed = [
        (text, labels[rng.choice(close[given[i]].tolist())] if i in flipped else label)
        for i, (text, label) in enumerate(rows)
    ]
    return changed, flipped


def look(rows: list[Any], clusters: Any) -> tuple[Any, dict[str, float]]:
    """Return the assessment and the processor seconds of its parts."""
    from tutelage.data.filters.refusal import is_refusal
    from tutelage.data.quality.assess import Assessment
    from tutelage.data.quality.label_errors import find_label_errors
    from tutelage.data.quality.outliers import find_outliers
    from tutelage.data.quality.space import clusters_of, make_space
    from tutelage.inference.tfidf_embed import TfidfEmbedder

    texts = [row.input_text for row in rows]
    TfidfEmbedder().embed(texts[:50])  # what is imported on first use is not the method's time
    start = time.process_time()
    space = make_space(
        texts, TfidfEmbedder().embed(texts), fitted=True, clusters=clusters_of(rows, clusters)
    )
    outliers = find_outliers(space)
    middle = time.process_time()
    skip = outliers.flagged | np.array([is_refusal(row.answer or "") for row in rows])
    labels = find_label_errors(space, [row.label for row in rows], skip=skip)
    spent = {
        "cpu_outliers": round(middle - start, 2),
        "cpu_all": round(time.process_time() - start, 2),
    }
    return Assessment(rows, space, "tfidf", outliers, labels), spent


def ours(seed: int) -> dict[str, Any]:
    """Return what is found of one seed's faults, and what it costs."""
    rows, kinds, clusters = planted(seed)
    found, spent = look(rows, clusters)
    peak = round(common.peak_memory_mb())
    row = {
        "seed": seed,
        "rows": len(rows),
        "outliers": hits(found.outliers.order[:TOP_OUTLIERS], kinds, "outlier"),
        "flagged": int(found.outliers.flagged.sum()),
        "flips": hits([d.index for d in found.labels.doubts[:TOP_FLIPS]], kinds, "flip"),
    }
    rows, kinds, clusters = planted(seed, similar=True)
    found, _ = look(rows, clusters)
    top = [d.index for d in found.labels.doubts[:TOP_FLIPS]]
    row |= {"similar_flips": hits(top, kinds, "flip"), **spent, "peak_mb": peak}
    return {"rows": [row]}


def hits(places: Any, kinds: list[str], kind: str) -> int:
    """Return how many of the places hold what was planted."""
    return sum(kinds[int(place)] == kind for place in places)


def peers(seed: int) -> dict[str, Any]:
    """Return what others find of the same faults on the same vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    from tutelage.inference.tfidf_embed import TfidfEmbedder

    out: list[dict[str, Any]] = []

    def timed(name: str, score: Callable[[], Any], kinds: list[str], kind: str, top: int) -> None:
        start = time.process_time()
        order = np.argsort(-np.asarray(score()), kind="stable")[:top]
        spent = round(time.process_time() - start, 2)
        out.append({"method": name, "found": hits(order, kinds, kind), "cpu": spent})

    for similar in (False, True):
        rows, kinds, _ = planted(seed, similar)
        vectors = TfidfEmbedder().embed([row.input_text for row in rows])
        names = sorted({row.label for row in rows})
        given = np.array([names.index(row.label) for row in rows])
        if not similar:
            timed("LocalOutlierFactor", local_outlier_factor(vectors), kinds, "outlier",
                  TOP_OUTLIERS)  # fmt: skip
            timed("IsolationForest", isolation_forest(vectors), kinds, "outlier", TOP_OUTLIERS)
        start = time.process_time()
        model = LogisticRegression(C=10, max_iter=200)
        chance = cross_val_predict(model, vectors, given, cv=5, method="predict_proba")
        fitting = time.process_time() - start
        for method in ("self_confidence", "normalized_margin"):
            word = "similar flips" if similar else "flips"
            score = doubt(given, chance, method)
            timed(f"{word}: logistic regression, {method}", lambda s=score: s, kinds, "flip",
                  TOP_FLIPS)  # fmt: skip
            out[-1]["cpu"] = round(out[-1]["cpu"] + fitting, 2)
    return {"rows": out}


def local_outlier_factor(vectors: Any) -> Callable[[], Any]:
    """Return the score of scikit-learn's LocalOutlierFactor."""
    from sklearn.neighbors import LocalOutlierFactor

    return lambda: -LocalOutlierFactor(20).fit(vectors).negative_outlier_factor_


def isolation_forest(vectors: Any) -> Callable[[], Any]:
    """Return the score of scikit-learn's IsolationForest."""
    from sklearn.ensemble import IsolationForest

    return lambda: -IsolationForest(random_state=0).fit(vectors).score_samples(vectors)


def doubt(given: Any, chance: Any, method: str) -> Any:
    """Return cleanlab's score turned round, or its formula where it is not installed."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        own = chance[np.arange(len(given)), given]
        if method == "self_confidence":
            return -own
        other = chance.copy()
        other[np.arange(len(given)), given] = -1
        return -(own - other.max(axis=1) + 1) / 2
    return -get_label_quality_scores(given, chance, method=method)


def best(seed: int) -> dict[str, Any]:
    """Return the test accuracy of a classifier on the best n, the top n and n random rows."""
    from tutelage.core.example import Example
    from tutelage.data.filters.refusal import is_refusal
    from tutelage.data.findings import Finding
    from tutelage.data.quality.assess import rank
    from tutelage.data.quality.select import select_best
    from tutelage.data.quality.softmax import fit
    from tutelage.inference.tfidf_embed import TfidfEmbedder

    rows, _, clusters = planted(seed)
    found, _ = look(rows, clusters)
    refused: list[Example] = [row for row in rows if is_refusal(row.answer or "")]
    scores = rank(found, findings=[Finding("D2-C03", "", "", row.id) for row in refused])
    with (DATA / "banking77" / "test.csv").open(newline="", encoding="utf-8") as stream:
        test = [(row["text"], row["category"]) for row in csv.DictReader(stream)]
    names = sorted({row.label for row in rows})
    given = np.array([names.index(row.label) for row in rows])
    expected = np.array([names.index(label) for _, label in test])
    texts = [row.input_text for row in rows] + [text for text, _ in test]
    vectors = TfidfEmbedder().embed(texts)

    def accuracy(places: Any) -> float:
        model = fit(vectors[places], given[places], len(names), 12, 0)
        predicted = model.predict(vectors[len(rows) :]).argmax(axis=1)
        return round(float((predicted == expected).mean()), 4)

    rng = np.random.default_rng(seed)
    out = []
    for size in SIZES:
        drawn = [accuracy(rng.choice(len(rows), size, replace=False)) for _ in range(3)]
        chosen = select_best(rows, size, scores, found.space).kept
        out.append(
            {
                "seed": seed,
                "n": size,
                "best": accuracy(np.array(chosen)),
                "random": round(sum(drawn) / 3, 4),
                "highest_scores": accuracy(scores.order[:size]),
                "all": accuracy(np.arange(len(rows))),
            }
        )
    return {"rows": out}


def large(seed: int) -> dict[str, Any]:
    """Return the cost of 100,000 rows: varied real rows with words of others, 1 % flipped."""
    from tests.planted import read_banking77, vary

    from tutelage.core.example import Example, Message

    clean = read_banking77(DATA)
    strangers = (DATA / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    rng = random.Random(seed)
    labels = sorted({label for _, label in clean})
    rows, kinds = [], []
    for i in range(100_000):
        text, label = rng.choice(clean)
        words = rng.choice(clean)[0].split()
        start = rng.randrange(len(words))
        text = f"{vary(text, rng)} {' '.join(words[start : start + 3])}"
        kind = "outlier" if i % 200 == 0 else "flip" if i % 100 == 1 else ""
        if kind == "outlier":
            text = rng.choice(strangers)
        if kind == "flip":
            label = rng.choice([other for other in labels if other != label])
        turns = (Message(role="user", content=text), Message(role="assistant", content=label))
        rows.append(Example(messages=turns, label=label))
        kinds.append(kind)
    before = common.peak_memory_mb()
    found, spent = look(rows, {})
    flagged = np.flatnonzero(found.outliers.flagged)
    row = {
        "rows": len(rows),
        "outliers_of_500_in_top_1000": hits(found.outliers.order[:1000], kinds, "outlier"),
        "flagged_outliers": len(flagged),
        "flips_of_1000_flagged": hits(
            [d.index for d in found.labels.doubts if d.flagged], kinds, "flip"
        ),
        "flagged_labels": found.labels.flagged,
        **spent,
        "rows_mb": round(before),
        "peak_mb": round(common.peak_memory_mb()),
    }
    return {"rows": [row]}


if __name__ == "__main__":
    main()
