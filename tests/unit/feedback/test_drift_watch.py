"""The watch over drift: fair e-values, few false alarms, quick true ones, a state that resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest

from tutelage.feedback.drift.begun import begun
from tutelage.feedback.drift.scan import Scan, along, among, near
from tutelage.feedback.drift.watch import BLOCK, POOL, SPANS, Blocks, DriftWatch, Item, Standing


def unit(values: np.ndarray) -> np.ndarray:
    rows = values.astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def scans(kind: str, rng: np.random.Generator, *, moved: bool = False) -> Scan:
    """The newest 20 after 60 others."""
    if kind == "near":
        points = rng.normal(size=(80, 8))
        points[-10:] += 4.0 * moved
        return near(unit(points), [20], rng)[0]
    if kind == "along":
        numbers = rng.poisson(6, 80)
        numbers[-10:] += 12 * moved
        return along(numbers, [20], rng)[0]
    codes = rng.integers(0, 4, 80)
    if moved:
        codes[-12:] = 4
    return among(codes, [20])[0]


@pytest.mark.parametrize("kind", ["near", "along", "among"])
def test_new_ones_like_the_others_have_an_e_value_of_one_on_average(kind: str) -> None:
    rng = np.random.default_rng(5)
    values = [np.exp(scans(kind, rng).log_e) for _ in range(400)]
    assert np.mean(values) < 1.0 + 4 * np.std(values) / 20


@pytest.mark.parametrize("kind", ["near", "along", "among"])
def test_new_ones_that_gather_somewhere_have_a_large_one_and_are_pointed_at(kind: str) -> None:
    found = scans(kind, np.random.default_rng(2), moved=True)
    assert found.log_e > 5
    assert set(found.where) <= set(range(60, 80)) and len(set(found.where) & set(range(68, 80))) > 4


def test_all_relabellings_together_are_fair_exactly() -> None:
    """The mean over every choice of the newest is 1: 4 of 12, one label held by 5."""
    from itertools import combinations

    codes = np.array([0] * 5 + [1] * 7)
    total = 0.0
    choices = list(combinations(range(12), 4))
    for new in choices:
        order = [i for i in range(12) if i not in new] + list(new)
        total += np.exp(among(codes[order], [4])[0].log_e)
    assert total / len(choices) == pytest.approx(1.0)


def test_a_looks_p_value_is_the_spans_mean_over_the_looks_share_and_the_shares_sum_to_one() -> None:
    standing, shares = Standing(0.05), []
    for _ in range(3):
        assert standing.take([2.0, 50.0], ["a", "b"]) == 1
        shares.append(standing.p)
        assert standing.since == "b"
    mean = (np.exp(50.0) + np.exp(2.0)) / len(SPANS)
    assert shares[0] == pytest.approx(101 / mean)
    assert shares[2] == pytest.approx(102 * 103 / 100 / mean)
    looks = sum(100 / ((99 + t) * (100 + t)) for t in range(1, 200_000))
    assert looks == pytest.approx(1.0, abs=1e-3)
    assert standing.take([1.0], ["c"]) is None and standing.p == 1.0 and standing.since is None


def test_blocks_keep_what_the_longest_span_needs_and_a_part_of_what_was_before() -> None:
    blocks: Blocks[int] = Blocks(10, 60, range(100))
    rng = np.random.default_rng(0)
    blocks.forget(rng)
    assert len(blocks.pool) == 60
    for number in range(1_000, 2_000):
        if blocks.add(number):
            blocks.forget(rng)
    assert len(blocks.blocks) == SPANS[-1] - 1 and len(blocks.pool) == 60
    last = list(range(2_000 - 10 * (SPANS[-1] - 1), 2_010))
    for number in range(2_000, 2_010):
        blocks.add(number)
    rows, spans = blocks.rows(lambda one: True)
    assert spans == {span: 10 * span for span in SPANS} and rows[-len(last) :] == last
    late = blocks.rows(lambda one: one >= 1_900)[1]
    assert late == {span: 10 * span for span in SPANS if 10 * span <= 60}


CENTRES = np.random.default_rng(11).normal(size=(7, 16)) * 2.0


def embed(texts: Sequence[str]) -> np.ndarray:
    """A text is "centre seed": a point near that centre."""
    return unit(np.stack([point(text) for text in texts]))


@cache
def point(text: str) -> np.ndarray:
    centre, seed = text.split()
    return np.asarray(CENTRES[int(centre)] + np.random.default_rng(int(seed)).normal(size=16))


def request(rng: np.random.Generator, place: int, centres: Sequence[int]) -> Item:
    centre = int(rng.choice(centres))
    text = f"{centre} {rng.integers(10**6)}"
    return Item(f"r{place}", text, f"{place:06d}", label=str(min(centre, 5)))


def feed(watch: DriftWatch, rng: np.random.Generator, start: int, count: int,
         centres: Sequence[int]) -> int | None:  # fmt: skip
    for place in range(start, start + count):
        if watch.add(request(rng, place, centres)) is not None:
            return place + 1
    return None


def reference(rng: np.random.Generator, count: int = 100) -> list[Item]:
    return [
        Item(f"row:{i}", f"{rng.integers(6)} {rng.integers(10**6)}") for i in range(count)
    ]  # fmt: skip


def test_a_new_kind_of_request_raises_the_alarm_and_is_pointed_at() -> None:
    rng = np.random.default_rng(0)
    watch = DriftWatch(embed, reference=reference(rng))
    assert feed(watch, rng, 0, 1_000, range(6)) is None
    alarm = None
    for place in range(1_000, 1_500):  # one request in ten is of a new kind
        new = rng.random() < 0.1
        alarm = watch.add(request(rng, place, [6] if new else range(6)))
        if alarm is not None:
            break
    assert alarm is not None and alarm.series == "request wording" and alarm.p <= 0.05
    assert "000800" <= alarm.since <= "001400"
    assert alarm.ids and all(int(name[1:]) >= 800 for name in alarm.ids)


MANY = np.random.default_rng(12).normal(size=(60, 16)) * 2.0


def embed_many(texts: Sequence[str]) -> np.ndarray:
    places = [text.split() for text in texts]
    return unit(np.stack([MANY[int(kind)] + np.random.default_rng(int(seed)).normal(size=16)
                          for kind, seed in places]))  # fmt: skip


def test_an_alarm_says_when_the_change_began_though_a_longer_span_tells() -> None:
    """A small change at 2,000, which raises no alarm yet, and a large one at 2,900."""
    rng = np.random.default_rng(6)
    watch = DriftWatch(embed_many)
    alarm = None
    for place in range(3_500):
        more = 1.0 if place < 2_000 else 1.3 if place < 2_900 else 1.9
        kind = rng.choice(60, p=np.repeat([more, 2 - more], 30) / 60)
        text = f"{kind} {rng.integers(10**6)}"
        alarm = watch.add(Item(f"r{place}", text, f"{place:06d}"))
        if alarm is not None:
            break
    assert alarm is not None and alarm.series == "request wording"
    assert "002850" <= alarm.since <= "002950"
    assert len(alarm.ids) > 10 and all(int(name[1:]) >= int(alarm.since) for name in alarm.ids)


def test_where_more_of_them_come_from_on_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(6)
    inside = np.flatnonzero(rng.random(1_000) < np.repeat([0.1, 0.4], 500))
    assert 450 <= begun(inside.tolist(), 1_000) <= 550
    even = [begun(np.flatnonzero(rng.random(600) < 0.2).tolist(), 600) for _ in range(100)]
    assert sum(place > 0 for place in even) <= 5
    fewer = np.flatnonzero(rng.random(1_000) < np.repeat([0.4, 0.1], 500))
    assert begun(fewer.tolist(), 1_000) == 0, "they became fewer"
    assert begun([], 1_000) == begun([3], 20) == 0


def test_a_new_release_that_answers_otherwise_is_no_drift() -> None:
    rng = np.random.default_rng(8)
    watch = DriftWatch(embed, reference=reference(rng))
    for place in range(2_400):
        item = request(rng, place, range(6))
        new = place >= 1_200 and rng.random() < min(1.0, (place - 1_200) / 600)
        if new:  # it calls zeros ones, from its first answer on
            item = replace(item, label="1" if item.label == "0" else item.label)
        assert watch.add(replace(item, release="after" if new else "before")) is None
    for place in range(2_400, 2_900):  # and then it begins to err
        item = replace(request(rng, place, range(6)), label="1", release="after")
        alarm = watch.add(item)
        if alarm is not None:
            break
    assert alarm is not None and alarm.series == "label"


def test_years_without_a_change_stay_silent() -> None:
    """The bound is 5 %; four quiet streams with a large alpha: two alarms are as many as fit."""
    alarms = 0
    for seed in range(4):
        rng = np.random.default_rng(100 + seed)
        watch = DriftWatch(embed, alpha=0.1, seed=seed, reference=reference(rng, 60))
        alarms += feed(watch, rng, 0, 1_000, range(6)) is not None
    assert alarms <= 2  # P(more than 2 of 4 at 0.1) = 0.004


def test_verdicts_that_turn_are_told() -> None:
    rng = np.random.default_rng(1)
    watch = DriftWatch(embed)

    def first_alarm(good: float, start: int, count: int) -> int | None:
        for place in range(start, start + count):
            value = float(rng.random() < good)
            if watch.add_score(value, f"r{place}", f"{place:06d}") is not None:
                return place
        return None

    assert first_alarm(0.9, 0, 500) is None
    found = first_alarm(0.4, 500, 200)
    assert found is not None
    (score,) = [one for one in watch.evidence() if one.series == "score"]
    assert score.p <= 0.05 and score.since is not None


def test_of_a_persons_requests_in_a_row_one_counts() -> None:
    """Five thousand requests in five thousand minutes of one user are some eighty; none is lost
    of a team of three who ask an hour apart."""
    rng = np.random.default_rng(3)
    busy = DriftWatch(embed, reference=reference(rng))
    team = DriftWatch(embed, reference=reference(rng))
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    for place in range(5_000):
        at = (begin + timedelta(minutes=place)).isoformat()
        busy.add(Item(f"r{place}", f"6 {place}", at, user="one"))
    assert all(one.looks == 0 for one in busy.evidence())
    for place in range(BLOCK * SPANS[0]):
        at = (begin + timedelta(minutes=20 * place)).isoformat()
        team.add(Item(f"r{place}", f"3 {place}", at, user=f"nurse {place % 3}"))
    assert team.evidence()[0].looks == 1


def test_a_restored_watch_goes_on_as_if_it_had_never_stopped() -> None:
    rng = np.random.default_rng(4)
    start = reference(rng)
    items = [request(rng, place, range(6)) for place in range(700)]
    whole = DriftWatch(embed, seed=3, reference=start)
    cut = DriftWatch(embed, seed=3, reference=start)
    for item in items[:333]:
        cut.add(item)
        cut.add_score(0.0, item.id, item.at)
    known = {item.id: item for item in [*start, *items]}
    asked: set[str] = set()

    def find(ids: set[str]) -> dict[str, Item]:
        asked.update(ids)
        return {name: known[name] for name in ids}

    again = DriftWatch(embed, seed=3)
    again.restore(cut.state(), find)
    for item in items[:333]:
        whole.add(item)
        whole.add_score(0.0, item.id, item.at)
    for item in items[333:]:
        whole.add(item)
        again.add(item)
    assert again.state() == whole.state() and asked == cut.ids
    assert again.evidence() == whole.evidence()


def test_requests_that_were_deleted_leave_the_watch() -> None:
    rng = np.random.default_rng(4)
    watch = DriftWatch(embed, seed=3, reference=reference(rng))
    feed(watch, rng, 0, 120, range(6))
    again = DriftWatch(embed, seed=3)
    again.restore(watch.state(), lambda ids: {})
    assert again.ids == set()
    assert len(watch.ids) <= POOL + BLOCK * SPANS[-1]
