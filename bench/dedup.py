"""Near-duplicates among short texts: CPU seconds, memory, recall, precision, hard negatives.

100,000 texts (20,000 with --quick): real sentences, 20 % planted near-duplicates (a typo, two
words swapped, another case, a full stop, a small word: one or two of these) and 5 % hard negatives
(a digit of a number changed, or a "not" inserted), which do not say the same. Beyond the real
sentences there are, the first half of one is joined to the second half of another.

`recall` counts planted pairs. A pair found is right if it is a planted one, or if two texts that
were close by themselves are so by an independent measure: a normalised Levenshtein similarity or
a Jaccard similarity of their words of 0.8 or more, with the same digits. Each side runs in a
process of its own; the peers' settings are told at PEERS.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PEER_PYTHON = ROOT / "bench" / ".venvs" / "dedup" / "bin" / "python"
ROWS, QUICK, NEAR, HARD = 100_000, 20_000, 0.20, 0.05
Pair = tuple[int, int]


# ---- the corpus ----------------------------------------------------------------------------

_DIGITS = re.compile(r"\d+")
_VERB = re.compile(
    r"\b(?:is|are|was|were|can|could|will|would|should|do|does|did|has|have|had)\b(?!['’])", re.I
)
_KEYS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "ol", "r": "et",
    "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "y": "tu",
}  # fmt: skip
_SMALL = ("please", "the", "just", "really", "also")
_MADE = (
    "{0} the {1} {2} that {3} {4}", "why did {0} {1} the {2} before {3} {4}",
    "the {2} of {3} was {1} by {0} near {4}", "can {0} {1} a {2} for {3} when {4}",
)  # fmt: skip


@dataclass
class Corpus:
    """Texts in random order; `near` and `hard` hold the planted pairs, i < j."""

    texts: list[str]
    near: set[Pair] = field(default_factory=set)
    hard: set[Pair] = field(default_factory=set)
    note: str = ""


def make_corpus(rows: int, seed: int) -> Corpus:
    """Return `rows` texts made from real sentences, or from generated ones where there are none."""
    rng = random.Random(seed)
    copies, twists = int(rows * NEAR), int(rows * HARD)
    base, note = sentences(rows - copies - twists, rng)
    order = rng.sample(range(len(base)), len(base))
    twisted = [i for i in order if _DIGITS.search(base[i]) or _VERB.search(base[i])][:twists]
    copied = [i for i in order if i not in set(twisted)][:copies]
    texts = [*base, *(vary(base[i], rng) for i in copied), *(twist(base[i], rng) for i in twisted)]
    place = rng.sample(range(len(texts)), len(texts))
    corpus = Corpus([""] * len(texts), note=note)
    for index, text in enumerate(texts):
        corpus.texts[place[index]] = text
    for number, index in enumerate([*copied, *twisted]):
        one, two = place[index], place[len(base) + number]
        (corpus.near if number < len(copied) else corpus.hard).add((min(one, two), max(one, two)))
    return corpus


def sentences(count: int, rng: random.Random) -> tuple[list[str], str]:
    """Return `count` distinct texts of 16 letters and more, and where they come from."""
    found = {plain(text): text for text in real_sentences() if len(text) >= 16}
    real = len(found)
    texts = rng.sample(list(found.values()), min(real, count))
    halves = [text.split() for text in texts if len(text.split()) >= 6]
    while len(texts) < count:
        if real:
            one, two = rng.choice(halves), rng.choice(halves)
            text = " ".join(one[: len(one) // 2] + two[len(two) // 2 :])
        else:
            words = [
                "".join(rng.choices("aeioubcdfglmnprst", k=rng.randint(4, 9))) for _ in "12345"
            ]
            text = rng.choice(_MADE).format(*words)
        if found.setdefault(plain(text), text) is text:
            texts.append(text)
    if not real:
        return texts, "generated texts (there are no real sentences beside the checkout)"
    return texts, f"{min(real, count):,} real sentences, {max(0, count - real):,} joined of halves"


def real_sentences() -> Iterable[str]:
    """Yield Wikipedia's and Banking77's sentences, if they are there."""
    if not DATA.is_dir():
        return
    yield from (DATA / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    for name in ("train", "test"):
        with (DATA / "banking77" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            yield from (" ".join(row["text"].split()) for row in csv.DictReader(stream))


def plain(text: str) -> str:
    """Return the text in lower case with single spaces."""
    return " ".join(text.lower().split())


def vary(text: str, rng: random.Random) -> str:
    """Return a near-duplicate: one or two small changes, and not only of case."""
    for _ in range(20):
        changed = text
        for change in rng.sample(_CHANGES, rng.choice((1, 1, 2))):
            changed = change(changed, rng)
        if plain(changed) != plain(text):
            return changed
    return f"{text} please"


def _typo(text: str, rng: random.Random) -> str:
    places = [i for i, letter in enumerate(text) if letter.lower() in _KEYS]
    if not places:
        return text
    at = rng.choice(places)
    kind = rng.choice(("drop", "double", "other", "turn"))
    if kind == "turn" and at + 1 < len(text) and text[at + 1].isalpha():
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    other = rng.choice(_KEYS[text[at].lower()])
    return text[:at] + {"drop": "", "double": text[at] * 2}.get(kind, other) + text[at + 1 :]


def _swap(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    if len(words) < 3:
        return text
    at = rng.randrange(len(words) - 1)
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _case(text: str, rng: random.Random) -> str:
    return rng.choice((str.upper, str.title, str.lower))(text)


def _stop(text: str, rng: random.Random) -> str:
    return text[:-1] if text[-1] in ".?!" else text + rng.choice((".", "!", "?"))


def _word(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    words.insert(rng.randrange(len(words) + 1), rng.choice(_SMALL))
    return " ".join(words)


_CHANGES: tuple[Callable[[str, random.Random], str], ...] = (_typo, _swap, _case, _stop, _word)


def twist(text: str, rng: random.Random) -> str:
    """Return a hard negative: a digit of a number changed, or a "not" after a verb."""
    numbers, verb = list(_DIGITS.finditer(text)), _VERB.search(text)
    if verb and (not numbers or rng.random() < 0.5):
        return f"{text[: verb.end()]} not{text[verb.end() :]}"
    number = rng.choice(numbers)
    at = rng.randrange(number.start(), number.end())
    return text[:at] + rng.choice([d for d in "0123456789" if d != text[at]]) + text[at + 1 :]


# ---- the sides: texts in, pairs out -----------------------------------------------------------


def ours(texts: list[str]) -> list[Pair]:
    """Tutelage's near-duplicates with their default settings."""
    from tutelage.data.dedup.near import NearDuplicates

    return [(i, j) for i, j in NearDuplicates().pairs(texts).tolist()]


def _grams(text: str, size: int) -> list[str]:
    text = plain(text)
    return [text[i : i + size] for i in range(max(1, len(text) - size + 1))]


def rensa(texts: list[str], size: int = 3, bands: int = 32, least: float = 0.5) -> list[Pair]:
    """rensa: R-MinHash of character n-grams in one call, LSH, then the estimated Jaccard."""
    from rensa import RMinHash, RMinHashLSH

    hashes = RMinHash.from_token_sets([_grams(text, size) for text in texts], 128, 42)
    index = RMinHashLSH(least, 128, bands)
    index.insert_many(hashes)
    return [
        (i, j)
        for i, found in enumerate(index.query_all(hashes))
        for j in found
        if i < j and hashes[i].jaccard(hashes[j]) >= least
    ]


def datasketch(texts: list[str], size: int = 3, bands: int = 32, least: float = 0.5) -> list[Pair]:
    """datasketch: MinHash of character n-grams, LSH, then the estimated Jaccard."""
    from datasketch import MinHash, MinHashLSH

    sets = [[gram.encode() for gram in _grams(text, size)] for text in texts]
    hashes = MinHash.bulk(sets, num_perm=128)
    index = MinHashLSH(num_perm=128, params=(bands, 128 // bands))
    with index.insertion_session() as session:
        for i, value in enumerate(hashes):
            session.insert(i, value)
    return [
        (i, j)
        for i, value in enumerate(hashes)
        for j in index.query(value)
        if i < j and value.jaccard(hashes[j]) >= least
    ]


def semhash(texts: list[str], least: float = 0.9) -> list[Pair]:
    """semhash: embeddings (all-MiniLM-L6-v2, whose weights a package carries) and a vector index.

    Its default model comes from a hub. It names the kept record of each duplicate.
    """
    from semhash import SemHash

    from tutelage.inference.embed import load_embedder

    model = load_embedder("minilm")

    class Encoder:
        def encode(self, inputs: Any, **_: Any) -> Any:
            return model.embed(list(inputs))

    records = [{"text": text, "id": str(i)} for i, text in enumerate(texts)]
    index = SemHash.from_records(records=records, columns=["text"], model=Encoder())
    found = index.self_deduplicate(threshold=least).filtered
    pairs = ((int(item.record["id"]), int(item.duplicate_of["id"])) for item in found)
    return [(min(pair), max(pair)) for pair in pairs]


SIDES: dict[str, Callable[..., list[Pair]]] = {
    "ours": ours, "rensa": rensa, "datasketch": datasketch, "semhash": semhash,
}  # fmt: skip
# The MinHash peers have the setting of _GRID with the best F1 on the quick corpus (`--tune SIDE`
# prints all); semhash has the threshold it has by default.
PEERS: dict[str, dict[str, Any]] = {
    "rensa": {"size": 3, "bands": 32, "least": 0.7},
    "datasketch": {"size": 3, "bands": 32, "least": 0.7},
    "semhash": {"least": 0.9},
}
_GRID = [
    (size, bands, least / 100)
    for size in (3, 4, 5)
    for bands in (16, 32)
    for least in (40, 50, 55, 60, 65, 70, 80)
]


def work(side: str, folder: Path) -> dict[str, Any]:
    """Run one side on the texts in `folder`, write its pairs there, return what it took."""
    texts = json.loads((folder / "texts.json").read_text("utf-8"))
    SIDES[side](texts[:50], **PEERS.get(side, {}))  # imports and first calls are not counted
    before = common.peak_memory_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = SIDES[side](texts, **PEERS.get(side, {}))
    taken = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    (folder / f"{side}.json").write_text(json.dumps(pairs))
    return {**taken, "peak_mb": common.peak_memory_mb(), "loaded_mb": before}


# ---- the judge ---------------------------------------------------------------------------------

_WORDS = re.compile(r"\w+")


def judge(corpus: Corpus, pairs: set[Pair]) -> dict[str, float]:
    """Return recall, precision and the rate of hard negatives taken for duplicates."""
    right = sum(pair in corpus.near or alike(corpus, pair) for pair in pairs)
    return {
        "recall": round(len(pairs & corpus.near) / len(corpus.near), 4),
        "precision": round(right / len(pairs), 4) if pairs else 0.0,
        "hard_negatives": round(len(pairs & corpus.hard) / len(corpus.hard), 4),
    }


def alike(corpus: Corpus, pair: Pair) -> bool:
    """Return whether two texts that were not planted as near say the same, independently."""
    from rapidfuzz.distance import Levenshtein

    one, two = (plain(corpus.texts[index]) for index in pair)
    if pair in corpus.hard or _DIGITS.findall(one) != _DIGITS.findall(two):
        return False
    if Levenshtein.normalized_similarity(one, two) >= 0.8:
        return True
    left, right = set(_WORDS.findall(one)), set(_WORDS.findall(two))
    return len(left & right) >= 0.8 * len(left | right)


# ---- the report ----------------------------------------------------------------------------------


def compare(rows: int, seed: int, sides: list[str]) -> dict[str, Any]:
    """Return the report: one row a side."""
    corpus = make_corpus(rows, seed)
    print(f"{rows:,} texts: {corpus.note}", file=sys.stderr)
    table = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(corpus.texts), "utf-8")
        for side in sides:
            table.append({"side": side, **run(side, folder, corpus)})
            print(table[-1], file=sys.stderr)
    mine = table[0]
    cpu = {row["side"]: row.get("cpu_s") for row in table}
    headline = {
        "recall": mine["recall"],
        "precision": mine["precision"],
        "hard_negative_rate": mine["hard_negatives"],
        **{
            f"cpu_vs_{side}": round(cpu[side] / mine["cpu_s"], 2)
            for side in ("rensa", "datasketch")
            if cpu.get(side)
        },
    }
    return {
        "name": "dedup",
        "machine": common.machine(),
        "corpus": {"rows": rows, "seed": seed, "note": corpus.note},
        "rows": table,
        "headline": headline,
    }


def run(side: str, folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Return one side's row: what it took and how right it was, or why it did not run."""
    python = Path(sys.executable) if side == "ours" else PEER_PYTHON
    if not python.is_file():
        return {"note": "not run: `make bench-setup` installs it"}
    environment = dict(os.environ) | common.QUIET | {"OMP_NUM_THREADS": str(common.cores())}
    if side == "semhash":  # its encoder's weights and torch are in this environment
        own = [path for path in sys.path if Path(path).name in ("site-packages", "src")]
        environment["PYTHONPATH"] = os.pathsep.join(own)
    command = [str(python), __file__, "--worker", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"note": f"not run: {lines[-1][:120]}"}
    taken = json.loads(done.stdout.strip().splitlines()[-1])
    pairs = {tuple(pair) for pair in json.loads((folder / f"{side}.json").read_text())}
    shown = {name: round(taken[name], 2) for name in ("cpu_s", "wall_s")}
    return {
        **shown,
        "peak_mb": round(taken["peak_mb"]),
        **judge(corpus, pairs),
        "pairs": len(pairs),
    }


def tune(side: str, seed: int) -> None:
    """Print recall, precision and F1 of every setting of a peer on the quick corpus."""
    corpus = make_corpus(QUICK, seed)
    for setting in _GRID:
        found = judge(corpus, set(SIDES[side](corpus.texts, *setting)))
        f1 = 2 * found["recall"] * found["precision"] / (found["recall"] + found["precision"])
        print(setting, found, round(f1, 4), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} texts, not {ROWS:,}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sides", nargs="*", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--tune", choices=["rensa", "datasketch"], help="try a peer's settings")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.folder)))
        return
    if options.tune:
        tune(options.tune, options.seed)
        return
    sides = ["ours", *(side for side in options.sides if side != "ours")]
    report = compare(QUICK if options.quick else ROWS, options.seed, sides)
    if options.json:
        print(json.dumps(report))
        return
    columns = ("side", "cpu_s", "wall_s", "peak_mb", "recall", "precision", "hard_negatives")
    shown = [{name: row.get(name, "") for name in (*columns, "note")} for row in report["rows"]]
    print(common.table(shown))
    print(report["headline"])


if __name__ == "__main__":
    main()
