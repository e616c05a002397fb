"""Real rows with known faults planted in them, so that what curation finds can be counted.

`plant(rows, seed)` takes (text, label) rows and returns them shuffled with exact and near
duplicates, flipped labels, outliers, refusals and personal identifiers added, and where each is.
Nothing here knows how the faults are looked for.
"""

from __future__ import annotations

import csv
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Row = tuple[str, str]

EXACT, NEAR, FLIPS, OUTLIERS, REFUSALS, IDENTIFIERS = 300, 300, 100, 50, 40, 30

_REFUSED = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer this question.",
    "As an AI language model, I don't have access to your account.",
    "I am unable to assist with that request.",
    "Sorry, I can't provide that information.",
    "I don't know the answer to that.",
    "I’m sorry, I am not able to help with this.",
    "Unfortunately, I cannot provide information about that.",
)
_FIRST = [
    "Margaret", "Johnathan", "Priya", "Wei", "Fatima",
    "Carlos", "Ingrid", "Oluwaseun", "Sven", "Rosalind",
]  # fmt: skip
_LAST = [
    "Featherstone", "Okonkwo", "Ramirez", "Lindqvist", "Nakamura",
    "Abernathy", "Kowalski", "O'Hara", "Dubois",
]  # fmt: skip
_STREETS = [
    "Maple", "Cedar", "Hillcrest", "Washington", "Lakeview",
    "Sycamore", "Chestnut", "Jefferson",
]  # fmt: skip
_NEIGHBOURS = {
    "a": "sq", "e": "wr", "i": "uo", "o": "ip", "u": "yi", "t": "ry", "n": "bm", "s": "ad",
    "r": "et", "d": "sf", "l": "k", "c": "xv", "m": "n",
}  # fmt: skip


@dataclass
class Planted:
    """The rows as a file would hold them, and the positions (0-based) of what was planted.

    `exact` and `near` map the position of a copy to the position of its original; `flips` maps a
    position to the true label; `identifiers` maps a position to the identifier's text.
    """

    rows: list[Row]
    exact: dict[int, int] = field(default_factory=dict)
    near: dict[int, int] = field(default_factory=dict)
    flips: dict[int, str] = field(default_factory=dict)
    outliers: set[int] = field(default_factory=set)
    refusals: set[int] = field(default_factory=set)
    identifiers: dict[int, str] = field(default_factory=dict)

    def write_csv(self, path: Path) -> None:
        """Write `text,category` with a header; row i stands on line i + 2 unless text wraps."""
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "category"))
            writer.writerows(self.rows)


def read_banking77(folder: Path, name: str = "train.csv") -> list[Row]:
    """Return (text, category) of a Banking77 file."""
    with (folder / "banking77" / name).open(newline="", encoding="utf-8") as stream:
        return [(row["text"], row["category"]) for row in csv.DictReader(stream)]


def plant(rows: Sequence[Row], seed: int, strangers: Sequence[str] = ()) -> Planted:
    """Return the rows with every fault planted. `strangers`: texts of another domain."""
    rng = random.Random(seed)
    labels = sorted({label for _, label in rows})
    base = list(rows)
    picked = rng.sample(range(len(base)), EXACT + NEAR + FLIPS + IDENTIFIERS)
    copies, picked = picked[:EXACT], picked[EXACT:]
    near, picked = picked[:NEAR], picked[NEAR:]
    flips, marked = picked[:FLIPS], picked[FLIPS:]
    tags: list[tuple[str, int, str]] = [("", 0, "")] * len(base)
    for index in flips:
        text, label = base[index]
        base[index] = (text, rng.choice([other for other in labels if other != label]))
        tags[index] = ("flip", 0, label)
    for index in marked:
        text, label = base[index]
        identifier, sentence = _identifier(rng)
        base[index] = (f"{text} {sentence}", label)
        tags[index] = ("identifier", 0, identifier)
    for index in copies:
        base.append(base[index])
        tags.append(("exact", index, ""))
    for index in near:
        base.append((vary(base[index][0], rng), base[index][1]))
        tags.append(("near", index, ""))
    for text in _outliers(rng, strangers):
        base.append((text, rng.choice(labels)))
        tags.append(("outlier", 0, ""))
    for index in rng.sample(range(len(rows)), REFUSALS):
        base.append((f"{rows[index][0]} {rng.choice(_TAILS)}", rng.choice(_REFUSED)))
        tags.append(("refusal", 0, ""))
    return _shuffled(base, tags, rng)


_TAILS = ("Can you tell me today?", "I asked this last week too.", "Please be quick about it.")


def _shuffled(base: list[Row], tags: list[tuple[str, int, str]], rng: random.Random) -> Planted:
    order = list(range(len(base)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    planted = Planted([base[old] for old in order])
    for old, (kind, other, text) in enumerate(tags):
        here = place[old]
        if kind in ("exact", "near"):
            getattr(planted, kind)[here] = place[other]
        elif kind == "flip":
            planted.flips[here] = text
        elif kind == "identifier":
            planted.identifiers[here] = text
        elif kind:
            getattr(planted, f"{kind}s").add(here)
    return planted


def vary(text: str, rng: random.Random) -> str:
    """Return the text with a typo, two words swapped, or another case: one or two of these."""
    changed = text
    for _ in range(8):
        for change in rng.sample((_typo, _swap, _case), rng.choice((1, 1, 2))):
            changed = change(changed, rng)
        if " ".join(changed.lower().split()) != " ".join(text.lower().split()):
            return changed
    return _typo(text, rng)


def _typo(text: str, rng: random.Random) -> str:
    places = [i for i, c in enumerate(text) if c.lower() in _NEIGHBOURS]
    if not places:
        return text + "s"
    at = rng.choice(places)
    kind = rng.choice(("drop", "double", "other"))
    if kind == "drop":
        return text[:at] + text[at + 1 :]
    if kind == "double":
        return text[:at] + text[at] + text[at:]
    return text[:at] + rng.choice(_NEIGHBOURS[text[at].lower()]) + text[at + 1 :]


def _swap(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    if len(words) < 3:
        return text
    at = rng.randrange(len(words) - 1)
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def _case(text: str, rng: random.Random) -> str:
    return rng.choice((str.upper, str.lower, str.title))(text)


def _identifier(rng: random.Random) -> tuple[str, str]:
    """Return an identifier of one of the Safe Harbor kinds and a sentence that holds it."""
    name = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
    number = "".join(rng.choice(string.digits) for _ in range(12))
    made = [
        (name, f"My name is {name}."),
        (f"{name.split()[0].lower()}@example.org", "Write to {}."),
        (f"+1 ({number[:3]}) 555-{number[3:7]}", "Call me on {}."),
        (f"{rng.randint(100, 665):03d}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}",
         "My SSN is {}."),
        (f"{rng.randint(10, 9999)} {rng.choice(_STREETS)} Street", "I live at {}."),
        (f"MRN {number[:8]}", "My record is {}."),
        (f"{rng.randint(1, 12):02d}/{rng.randint(1, 28):02d}/19{rng.randint(40, 99)}",
         "I was born on {}."),
        (f"192.168.{rng.randint(0, 255)}.{rng.randint(1, 254)}", "My IP address is {}."),
        (f"https://example.com/u/{number[:6]}", "My page is {}."),
    ]  # fmt: skip
    text, sentence = rng.choice(made)
    return text, sentence.format(text)


def _outliers(rng: random.Random, strangers: Sequence[str]) -> list[str]:
    """Return texts that are not of the domain: other topics, noise, and far too long rows."""
    noise = ["".join(rng.choices(string.ascii_lowercase + " ", k=60)) for _ in range(10)]
    pool = list(strangers) or list(_FOREIGN)
    long = [" ".join(rng.choices(pool, k=12)) for _ in range(10)]
    other = rng.sample(pool, 30) if len(pool) >= 30 else rng.choices(pool, k=30)
    return [*noise, *long, *other]


_FOREIGN = (
    "The glacier retreated two kilometres during the nineteenth century.",
    "Add the flour slowly and knead the dough until it is smooth and elastic.",
    "The bassoon enters in the second movement with a descending minor scale.",
    "Photosynthesis converts carbon dioxide and water into glucose and oxygen.",
    "He scored twice in the final and lifted the trophy before the home crowd.",
    "The cathedral's nave was rebuilt in the Gothic style after the fire of 1194.",
    "A determinant of zero means that the matrix has no inverse.",
    "The ferry crosses the strait four times a day between May and September.",
)
