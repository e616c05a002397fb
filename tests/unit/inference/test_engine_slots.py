"""Who gets which slot, and how the start that many prompts share is computed once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tutelage.core.errors import ModelError
from tutelage.inference.engine_roster import Roster, Taken, common
from tutelage.inference.engine_starts import SharedStarts

RULES = "The rules are long. " * 40


def test_how_much_two_texts_begin_alike() -> None:
    assert common("", "a") == common("a", "") == common("ab", "cb") == 0
    assert common("abc", "abd") == 2
    assert common("abc", "abc") == common("abc", "abcd") == 3


def take(roster: Roster, release: str, prompt: str = "x", shared: int = 0) -> Taken:
    taken = roster.take(release, prompt, shared)
    assert taken is not None
    return taken


def fill(roster: Roster, *texts: str) -> list[int]:
    taken = [take(roster, "r1", text) for text in texts]
    for place, text in zip(taken, texts, strict=True):
        roster.give(place, text, 10)
    return [place.index for place in taken]


def test_a_conversation_goes_on_in_the_slot_that_holds_it() -> None:
    roster = Roster(3)
    slots = fill(roster, "a" * 400, "b" * 400, "c" * 400)
    assert sorted(slots) == [0, 1, 2]
    assert take(roster, "r1", "b" * 400 + " and then?") == Taken(slots[1], 400, own=True)


def test_what_another_release_computed_is_not_held() -> None:
    """Keys and values depend on the adapter."""
    roster = Roster(1)
    fill(roster, "a" * 400)
    assert take(roster, "r2", "a" * 400) == Taken(0, 0, own=False)


def test_what_only_shares_the_rules_takes_the_slot_idle_longest() -> None:
    roster = Roster(2)
    first, second = fill(roster, RULES + "one", RULES + "two")
    taken = take(roster, "r1", RULES + "three", len(RULES))
    assert taken.index == first  # what was asked last may go on
    assert taken.held >= len(RULES)
    assert take(roster, "r1").index == second


def test_a_slot_is_waited_for_until_the_client_leaves() -> None:
    roster = Roster(1)
    taken = take(roster, "r1")
    assert roster.take("r1", "y", 0, gone=lambda: True) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(roster.take, "r1", "y", 0)
        roster.give(taken, "x", 1)
        assert waiting.result(30) == Taken(0, 0, own=True)


def test_the_release_that_was_served_less_goes_in_front() -> None:
    """llama.cpp computes the adapter of the busy slot with the lowest number."""
    roster = Roster(4)
    for turn in range(4):
        taken = [take(roster, "often", f"{turn}{n}") for n in range(4)]
        for place in taken:
            roster.give(place, "x", 100)
    behind = [take(roster, "often") for _ in range(4)]
    front = next(place for place in behind if place.index == 0)
    roster.give(front, "x", 100)
    assert take(roster, "rare").index == 0


def test_a_rare_release_is_neither_starved_nor_overtaken() -> None:
    """Another that never pauses asks for each slot as it becomes free."""
    roster = Roster(2)
    running = {taken.index: taken for taken in (take(roster, "often"), take(roster, "often"))}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(roster.take, "rare", "x", 0)
        while roster.waiting == 0:
            time.sleep(0.001)
        roster.give(running[1], "x", 50)
        rare = waiting.result(30)
    assert rare is not None and rare.index == 1
    roster.give(running[0], "x", 50)
    assert roster.take("often", "x", 0, gone=lambda: True) is None  # slot 0 would go in front
    assert take(roster, "rare").index == 0
    roster.give(rare, "x", 500)


class Disk:
    """Files of slots, in memory; `broken` makes every move fail."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, int]] = []
        self.computed: list[str] = []
        self.broken = False
        self.folder: Path | None = None
        self.go = threading.Event()
        self.go.set()

    def slot(self, index: int) -> Slot:
        return Slot(self, index)


class Slot:
    """One slot, as SharedStarts sees it."""

    def __init__(self, disk: Disk, index: int) -> None:
        self.disk, self.index = disk, index
        self.stays = True

    def compute(self, text: str) -> bool:
        assert self.disk.go.wait(30)
        if self.stays:
            self.disk.computed.append(text)
        return self.stays

    def save(self, name: str) -> None:
        if self.disk.broken:
            raise ModelError("the disk is full")
        self.disk.moves.append(("save", self.index))
        if self.disk.folder:
            (self.disk.folder / name).write_bytes(b"keys")

    def restore(self, name: str) -> None:
        self.disk.moves.append(("restore", self.index))


def test_eight_requests_at_once_compute_a_shared_start_once(tmp_path: Path) -> None:
    disk, starts = Disk(), SharedStarts(tmp_path)
    disk.go.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(starts.bring, "r1", RULES, disk.slot(n)) for n in range(8)]
        disk.go.set()
        for done in asked:
            done.result(30)
    assert disk.computed == [RULES]
    assert [kind for kind, _ in disk.moves] == ["save"] + ["restore"] * 7
    assert len({slot for _, slot in disk.moves}) == 8
    starts.bring("r2", RULES, disk.slot(0))  # another adapter: other keys and values
    assert disk.computed == [RULES, RULES]


def test_a_start_that_cannot_be_kept_is_tried_again_and_never_an_error(tmp_path: Path) -> None:
    disk, starts = Disk(), SharedStarts(tmp_path)
    disk.broken = True
    starts.bring("r1", RULES, disk.slot(0))
    starts.bring("r1", RULES, disk.slot(1))
    assert disk.computed == [RULES, RULES]
    left = disk.slot(0)
    left.stays = False  # the client is gone
    starts.bring("r1", RULES, left)
    disk.broken = False
    starts.bring("r1", RULES, disk.slot(1))
    assert disk.moves == [("save", 1)]


def test_starts_that_nobody_shares_are_soon_left_alone(tmp_path: Path) -> None:
    """A system message with a document in it is new each time: to keep it would be waste."""
    disk, starts = Disk(), SharedStarts(tmp_path)
    for turn in range(24):
        starts.bring("r1", f"{turn} {RULES}", disk.slot(0))
    once = len(disk.computed)
    assert once < 16
    starts.bring("r1", f"23 {RULES}", disk.slot(0))  # seen before: now it is worth it
    assert len(disk.computed) == once + 1
    starts.bring("r1", f"23 {RULES}", disk.slot(1))
    assert disk.moves[-1] == ("restore", 1)


def test_only_a_few_files_are_kept_and_a_release_takes_its_own_along(tmp_path: Path) -> None:
    disk, starts = Disk(), SharedStarts(tmp_path)
    disk.folder = tmp_path
    for turn in range(12):
        for slot in (0, 1):
            starts.bring("r1", f"{turn} {RULES}", disk.slot(slot))
    assert len(list(tmp_path.iterdir())) == 8
    starts.forget("r1")
    assert list(tmp_path.iterdir()) == []
