"""Sides of rows: clusters, groups and time stay whole, old rows never move, shares are kept."""

from __future__ import annotations

import random
import string
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.core.config import Splits
from tutelage.core.example import SPLITS, Example, Message, Origin, SplitName
from tutelage.data.assign import assign, cluster_rows, group_key, share_findings
from tutelage.data.assign_time import moment


def row(text: str, label: str | None = "a", **fields: object) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=label or "x"))
    return Example(messages=turns, label=label, **fields)  # type: ignore[arg-type]


def distinct(count: int, start: int = 0, **fields: object) -> list[Example]:
    """Return rows that have no word in common."""
    made = []
    for i in range(start, start + count):
        rng = random.Random(i)
        words = ["".join(rng.choices(string.ascii_lowercase, k=9)) for _ in range(5)]
        made.append(row(" ".join(words), **fields))
    return made


def sides_of(
    rows: Sequence[Example],
    splits: Splits | None = None,
    frozen: dict[str, SplitName] | None = None,
    departed: Sequence[Example] = (),
) -> dict[str, SplitName]:
    named = cluster_rows([*rows, *departed])
    return assign(rows, named, splits or Splits(), frozen or {}, departed).sides


def test_shares_and_labels_are_spread() -> None:
    rows = distinct(200, label="a") + distinct(60, 200, label="b") + distinct(20, 300, label="c")
    sides = sides_of(rows)
    for label, count in (("a", 200), ("b", 60), ("c", 20)):
        found = Counter(sides[r.id] for r in rows if r.label == label)
        assert abs(found["train"] - 0.7 * count) <= 1
        assert abs(found["test"] - 0.15 * count) <= 1


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),
        (3, (2, 0, 1)),
        (4, (3, 0, 1)),
        (5, (3, 1, 1)),
        (6, (4, 1, 1)),
    ],
)
def test_where_the_rows_of_a_small_label_go(count: int, expected: tuple[int, int, int]) -> None:
    rows = distinct(200, label="big") + distinct(count, 500, label="small")
    sides = sides_of(rows)
    found = Counter(sides[r.id] for r in rows if r.label == "small")
    assert tuple(found[side] for side in SPLITS) == expected


def test_many_small_labels_do_not_fill_the_test_split() -> None:
    rows = [r for k in range(60) for r in distinct(3, 3 * k, label=f"label {k}")]
    found = Counter(sides_of(rows).values())
    assert found["train"] == 120
    assert abs(found["test"] - 0.15 * 180) <= 6
    assert abs(found["validation"] - 0.15 * 180) <= 1


def test_a_group_is_on_one_side_and_near_duplicates_join_groups() -> None:
    one = distinct(4, group="patient 1")
    two = distinct(4, 10, group="patient 2")
    bridge = row(one[0].input_text + "!", group="patient 2")
    rows = [*one, *two, bridge, *distinct(40, 50)]
    named = cluster_rows(rows)
    assert len({named[r.id] for r in [*one, *two, bridge]}) == 1
    sides = sides_of(rows)
    assert len({sides[r.id] for r in [*one, *two, bridge]}) == 1


def test_a_cluster_with_several_labels_counts_for_each() -> None:
    pairs = []
    for i, r in enumerate(distinct(40)):
        pairs += [
            row(r.input_text, "a", group=str(i)),
            row(r.input_text + " so", "b", group=str(i)),
        ]
    rows = pairs + distinct(60, 100, label="b")
    sides = sides_of(rows)
    for label, count in (("a", 40), ("b", 100)):
        test = sum(sides[r.id] == "test" for r in rows if r.label == label)
        assert abs(test - 0.15 * count) <= 2


def test_numbers_apart_are_never_on_two_sides() -> None:
    rows = [row(f"take {dose} mg of the medicine every morning") for dose in (5, 50, 500, 75)]
    assert len(set(cluster_rows(rows).values())) == 1


def test_a_new_twin_of_two_frozen_sides_leaves_the_lower_one_out() -> None:
    low, high = row("please send the brown parcel to my office"), row("please send it to my office")
    link = row("please send the parcel to my office")
    named = {low.id: "c", high.id: "c", link.id: "c"}
    given_ = assign([low, high, link], named, Splits(), {low.id: "train", high.id: "test"})
    assert given_.sides == {high.id: "test", link.id: "test"}
    (dropped,) = given_.dropped
    assert dropped.example is low
    assert "D10-X01" in dropped.reason
    assert dropped.cause == high.id


def test_a_corrected_line_keeps_its_side_although_its_old_row_is_gone() -> None:
    old = row("i have been waiting over a week is the card still coming", "arrival")
    relabelled = row(old.input_text, "linking")
    retyped = row(old.input_text.replace("week", "weeks"), "arrival")
    for new in (relabelled, retyped):
        rows = [*distinct(100), new]
        assert sides_of(rows, frozen={old.id: "test"}, departed=[old])[new.id] == "test"


def test_what_is_said_of_shares() -> None:
    sides = {"train": distinct(30), "validation": [], "test": distinct(30, 40, label="b")}
    said = {f.id: f.detail for f in share_findings(sides, Splits())}
    assert said["D10-S02"] == "validation has no rows"
    assert said["D10-S01"] == "test has 50% of the rows, 15% were asked for"
    assert said["D10-S03"] == "'a': its 30 rows are on the other sides"
    fine = {"train": distinct(70), "validation": distinct(15, 80), "test": distinct(15, 100)}
    assert share_findings(fine, Splits()) == []


def test_groups_of_production_records_are_known_by_their_hash() -> None:
    imported = row("one", group="patient 7")
    kept = row("two", group=group_key(imported), origin=Origin(kind="production", source="r1"))
    assert group_key(kept) == group_key(imported)
    rows = [imported, kept, *distinct(10)]
    named = cluster_rows(rows)
    assert named[imported.id] == named[kept.id]
    assert sides_of(rows, frozen={kept.id: "test"})[imported.id] == "test"


def test_new_production_rows_keep_their_side_or_stay_out() -> None:
    known, fresh = row("one", group="patient 7"), row("two", group="patient 8")
    origin = Origin(kind="production", source="r1")
    clash = row("three", group=group_key(known), origin=origin)
    leads = row("four", group=group_key(fresh), origin=origin)
    alone = row("five", origin=origin)
    rows = [known, fresh, clash, leads, alone, *distinct(10)]
    arrived: dict[str, SplitName] = {clash.id: "test", leads.id: "test", alone.id: "validation"}
    result = assign(rows, cluster_rows(rows), Splits(), {known.id: "train"}, (), arrived)
    assert result.sides[known.id] == "train"
    assert result.sides[fresh.id] == result.sides[leads.id] == "test"
    assert result.sides[alone.id] == "validation"
    (left,) = result.dropped
    assert left.example is clash
    assert left.cause == known.id


# --- time

TIMED = Splits(time="at")


def at(day: int, hour: int = 0) -> str:
    return (datetime(2026, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)).isoformat()


def dated(count: int, first_day: int = 0, start: int = 0) -> list[Example]:
    made = distinct(count, start)
    return [r.model_copy(update={"time": at(first_day + i)}) for i, r in enumerate(made)]


def test_the_newest_rows_are_tested_on() -> None:
    rows = dated(100)
    sides = sides_of(rows, TIMED)
    order = [sides[r.id] for r in rows]
    assert order == ["train"] * 70 + ["validation"] * 15 + ["test"] * 15


def test_rows_of_one_moment_stay_together() -> None:
    rows = [r.model_copy(update={"time": at(i // 20)}) for i, r in enumerate(distinct(100))]
    sides = sides_of(rows, TIMED)
    for day in range(5):
        assert len({sides[r.id] for r in rows[20 * day : 20 * day + 20]}) == 1


def test_times_are_compared_across_zones_and_spellings() -> None:
    assert moment(row("x", time="2026-03-01T01:00:00+02:00")) < moment(row("x", time="2026-03-01"))
    assert moment(row("x")) < moment(row("x", time="1950-01-01"))


def test_a_group_counts_as_new_as_its_newest_row() -> None:
    rows = dated(100)
    together = [rows[0], rows[99]]
    rows = [r.model_copy(update={"group": "g" if r in together else None}) for r in rows]
    sides = sides_of(rows, TIMED)
    assert sides[rows[0].id] == sides[rows[99].id] == "test"


def test_later_rows_keep_to_the_borders_of_a_frozen_time_split() -> None:
    rows = dated(100)
    frozen = sides_of(rows, TIMED)
    late, early = (
        dated(10, 120, 500),
        [r.model_copy(update={"time": at(3, 5)}) for r in distinct(5, 700)],
    )
    named = cluster_rows([*rows, *late, *early])
    result = assign([*rows, *late, *early], named, TIMED, frozen)
    assert {result.sides[r.id] for r in late} == {"test"}
    assert {result.sides[r.id] for r in early} == {"train"}
    assert all(result.sides[key] == side for key, side in frozen.items())
    (said,) = result.findings
    assert said.id == "D10-T01"
    assert "10 new rows are tested on: test begins at 2026-03-27" in said.detail
    newest_train = max(moment(r) for r in [*rows, *late, *early] if result.sides[r.id] == "train")
    oldest_test = min(moment(r) for r in [*rows, *late, *early] if result.sides[r.id] == "test")
    assert newest_train < oldest_test


def test_sides_frozen_before_time_was_asked_for_stay_and_it_is_said() -> None:
    rows = dated(100)
    frozen = sides_of(rows)
    late = dated(20, 120, 500)
    named = cluster_rows([*rows, *late])
    result = assign([*rows, *late], named, TIMED, frozen)
    assert [f.id for f in result.findings] == ["D10-T02"]
    found = Counter(result.sides[r.id] for r in late)
    assert found == {"train": 14, "validation": 3, "test": 3}


# --- frozen for ever

STEP = st.lists(
    st.tuples(
        st.integers(0, 59),  # which row
        st.sampled_from([None, "g1", "g2", "g3", "g4"]),
        st.booleans(),  # a near-duplicate of it
    ),
    min_size=1,
    max_size=12,
)
POOL = distinct(60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(STEP, st.sets(st.integers(0, 30))), min_size=2, max_size=5))
def test_additions_merges_and_removals_never_move_a_row(
    steps: list[tuple[list[tuple[int, str | None, bool]], set[int]]],
) -> None:
    frozen: dict[str, SplitName] = {}
    held: dict[str, Example] = {}
    for additions, removals in steps:
        before = list(held.values())
        gone = [before[i] for i in removals if i < len(before)]
        for item in gone:
            del held[item.id]
        for index, group, near in additions:
            base = POOL[index]
            text = base.input_text + (" x" if near else "")
            new = row(text, group=group)
            held.setdefault(new.id, new)
        rows = list(held.values())
        departed = [item for item in gone if item.id in frozen]
        named = cluster_rows([*rows, *departed])
        result = assign(rows, named, Splits(), frozen, departed)
        lost = {item.example.id for item in result.dropped}
        assert set(result.sides) | lost == set(held)
        for key, side in result.sides.items():
            assert frozen.get(key, side) == side
        by_cluster: dict[str, set[SplitName]] = defaultdict(set)
        by_group: dict[str, set[SplitName]] = defaultdict(set)
        for item in rows:
            if item.id in result.sides:
                by_cluster[named[item.id]].add(result.sides[item.id])
                if item.group:
                    by_group[item.group].add(result.sides[item.id])
        assert all(len(found) == 1 for found in (*by_cluster.values(), *by_group.values()))
        frozen |= result.sides
