"""Statistics of human evaluation: against other code, known preferences, and by simulation."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom, binomtest

from tutelage.core.errors import DataError
from tutelage.evaluation.human import results, rubric, sheet
from tutelage.evaluation.human.bradley_terry import fit, scale
from tutelage.evaluation.human.raters import position, rater_reports, vote_agreement
from tutelage.evaluation.human.rubric import Criterion, criteria_from, mark_differences, means
from tutelage.evaluation.human.sample import Answered, draw, left_is_first, rater_order
from tutelage.evaluation.human.votes import NOBODY, Mark, Vote, pairs_of
from tutelage.evaluation.human.win_rate import more_rows, preference, win_rate


def vote(item: str, value: float, rater: str = "anna", **more: object) -> Vote:
    return dataclasses.replace(Vote(item, item, rater, "tuned", "base", value), **more)


def votes(won: int, tied: int, lost: int) -> list[Vote]:
    values = [1.0] * won + [0.5] * tied + [0.0] * lost
    return [vote(f"row {n}", value) for n, value in enumerate(values)]


def drawn(chances: dict[tuple[str, str], float], rows: int, seed: int) -> list[Vote]:
    rng = np.random.default_rng(seed)
    return [
        Vote(str(n), str(n), f"r{n % 3}", first, second, float(rng.random() < chance))
        for n in range(rows)
        for (first, second), chance in chances.items()
    ]


# --- the win rate ---------------------------------------------------------------------------


def test_a_tie_is_half_a_win_and_the_sign_test_leaves_it_out() -> None:
    found = win_rate(votes(20, 10, 5), "tuned", "base")
    assert found is not None
    assert found.rate == pytest.approx((20 + 5) / 35)
    assert (found.wins, found.ties, found.losses, found.rows) == (20, 10, 5, 35)
    mid_p = binomtest(20, 25).pvalue - binom.pmf(20, 25, 0.5)
    assert found.p == pytest.approx(mid_p) and found.decision == "first" and found.more == 0
    turned = win_rate(votes(20, 10, 5), "base", "tuned")
    assert turned is not None and turned.rate == pytest.approx(1 - found.rate)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_a_row_counts_once_however_many_people_judged_it() -> None:
    many = [vote("one", 1.0, rater=f"r{n}") for n in range(9)]
    rest = [vote(f"row {n}", 0.0) for n in range(3)]
    found = win_rate(many + rest, "tuned", "base")
    assert found is not None and found.rate == pytest.approx(1 / 4)
    assert (found.rows, found.wins, found.losses) == (4, 9, 3)


def test_rows_of_one_cluster_make_the_interval_wider() -> None:
    loose = votes(40, 0, 20)
    tight = [dataclasses.replace(v, cluster=str(int(v.item.split()[1]) // 10)) for v in loose]
    apart, together = (win_rate(v, "tuned", "base") for v in (loose, tight))
    assert apart is not None and together is not None and together.clusters == 6
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_raters_who_differ_widen_the_second_interval_only() -> None:
    rng = np.random.default_rng(3)
    own = []
    for rater, chance in (("anna", 0.95), ("ben", 0.9), ("cleo", 0.3)):
        own += [vote(f"row {n}", float(rng.random() < chance), rater) for n in range(60)]
    found = win_rate(own, "tuned", "base")
    assert found is not None and found.wide_low is not None and found.wide_high is not None
    assert found.low > 0.5 and found.wide_low < 0.5
    assert found.wide_high - found.wide_low > 2 * (found.high - found.low)
    alone = win_rate(own[:60], "tuned", "base")
    assert alone is not None and alone.wide_low is None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        values = rng.choice((1.0, 0.5, 0.0), size=60, p=(0.5, 0.2, 0.3))
        found = preference(list(values), [str(n) for n in range(60)], seed=seed)
        held += found.low <= 0.2 <= found.high
    assert 0.91 <= held / 200 <= 0.99


def test_no_preference_and_all_ties_decide_nothing() -> None:
    even = win_rate(votes(10, 0, 10), "tuned", "base")
    assert even is not None and even.decision == "open" and even.more is None
    tied = win_rate(votes(0, 12, 0), "tuned", "base")
    assert tied is not None and tied.rate == 0.5 and tied.low < 0.5 < tied.high
    half = [vote(f"row {n}", value, rater) for n in range(8)
            for rater, value in (("anna", 1.0), ("ben", 0.0))]  # fmt: skip
    split = win_rate(half, "tuned", "base")
    assert split is not None and split.low < 0.5 < split.high


def test_the_rows_still_needed_would_decide_in_four_of_five_studies() -> None:
    found = preference([1.0] * 12 + [0.0] * 8, [str(n) for n in range(20)])
    more = more_rows(found)
    assert more is not None and 100 < more < 300
    rng, decided = np.random.default_rng(5), 0
    for seed in range(150):
        values = (rng.random(20 + more) < 0.6).astype(float)
        again = preference(list(values), [str(n) for n in range(20 + more)], seed=seed)
        decided += again.low > 0 or again.high < 0
    assert 0.7 <= decided / 150 <= 0.9


# --- one scale ------------------------------------------------------------------------------


def test_strengths_are_those_of_a_logistic_regression_without_ties() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    counts = np.zeros((6, 3))
    counts[:, :2] = rng.integers(3, 25, size=(6, 2))
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    design = np.zeros((6, 3))
    for row, (i, j) in enumerate(pairs):
        if i:
            design[row, i - 1] = 1
        design[row, j - 1] = -1
    model = sm.GLM(counts[:, :2], design, family=sm.families.Binomial()).fit(tol=1e-12)
    theirs = np.array([0.0, *model.params])
    ours = fit(counts, 4, ties=False, ridge=0.0).theta
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-7)


def test_strengths_with_ties_maximise_davidsons_likelihood() -> None:
    counts = np.random.default_rng(1).integers(1, 20, size=(6, 3)).astype(float)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]

    def loss(parameters: np.ndarray) -> float:
        worth, nu, total = np.exp(parameters[:4]), np.exp(parameters[4]), 0.0
        for (i, j), (won, lost, tied) in zip(pairs, counts, strict=True):
            both = nu * math.sqrt(worth[i] * worth[j])
            whole = worth[i] + worth[j] + both
            total -= won * math.log(worth[i] / whole) + lost * math.log(worth[j] / whole)
            total -= tied * math.log(both / whole)
        return total + float(parameters[:4].sum()) ** 2

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8})
    ours = fit(counts, 4, ties=True, ridge=0.0)
    assert ours.theta == pytest.approx(best.x[:4], abs=1e-4)
    assert float(ours.log_tie) == pytest.approx(best.x[4], abs=1e-4)
    assert loss(np.array([*ours.theta, float(ours.log_tie)])) <= best.fun + 1e-9


def test_many_rounds_at_once_are_each_fitted() -> None:
    counts = np.random.default_rng(2).integers(1, 9, size=(5, 3, 3)).astype(float)
    together = fit(counts, 3, ties=True).theta
    for one, row in zip(counts, together, strict=True):
        assert fit(one, 3, ties=True).theta == pytest.approx(row, abs=1e-7)


def test_known_strengths_come_back_inside_their_intervals() -> None:
    true = {"tuned": 0.8, "few_shot": 0.1, "base": -0.9}
    chances = {(a, b): 1 / (1 + math.exp(true[b] - true[a])) for a, b in pairs_of(list(true))}
    held = []
    for seed in range(1000, 1060):
        found = scale(drawn(chances, 80, seed), list(true))
        assert found is not None and found.model == "Bradley-Terry" and found.tie == 0.0
        held += [one.low < true[one.candidate] < one.high for one in found.strengths]
    assert 0.9 <= sum(held) / len(held) <= 0.99
    assert found.order() == ["tuned", "few_shot", "base"]
    tuned = found.strengths[0]
    assert tuned.chance == pytest.approx((tuned.wins + tuned.ties / 2) / 160, abs=0.03)


def test_a_candidate_that_never_lost_stays_on_the_scale_and_is_named() -> None:
    chances = {("tuned", "base"): 1.0, ("tuned", "few_shot"): 1.0, ("few_shot", "base"): 0.6}
    found = scale(drawn(chances, 30, 6), ["tuned", "few_shot", "base"])
    assert found is not None
    best = found.strengths[0]
    assert best.candidate == "tuned" and not best.bounded and math.isfinite(best.high)
    assert all(one.bounded for one in found.strengths[1:])
    asked = results.Asked(
        ("tuned", "few_shot", "base"), {"how": "all", "rows": 30, "of": 30, "differ": 30}
    )
    document = results.of_votes(asked, drawn(chances, 30, 6))
    assert any("tuned never lost" in note for note in document["notes"])
    json.dumps(document, allow_nan=False)


# --- people ---------------------------------------------------------------------------------


def test_who_takes_the_left_answer_too_often_is_named() -> None:
    rng = np.random.default_rng(8)
    own = []
    for n in range(60):
        left = "tuned" if rng.random() < 0.5 else "base"
        fair = float(rng.random() < 0.7)
        lazy = 1.0 if (left == "tuned") == (rng.random() < 0.9) else 0.0
        own.append(vote(f"row {n}", fair, "anna", left=left, seconds=20.0, place=n))
        own.append(vote(f"row {n}", lazy, "ben", left=left, seconds=9.0 - n / 10, place=n))
    anna, ben = rater_reports(own)
    assert not anna.leans and ben.leans and ben.p < 0.001
    assert ben.left_share is not None and ben.left_share > 0.8
    exact = binomtest(ben.left, ben.left + ben.right).pvalue
    assert ben.p / 2 < exact  # Holm doubles the smaller of two
    assert (anna.early, anna.late) == (20.0, 20.0)
    assert ben.early is not None and ben.late is not None and ben.early > ben.late
    whole = position(own)
    assert whole.left.n == 120 and whole.p < 0.01
    assert anna.with_others == ben.with_others


def test_agreement_is_that_of_the_data_layer_and_ties_of_nobody_do_not_count() -> None:
    both = [1.0, 1.0, 0.0, 0.5, 1.0, 0.0]
    other = [1.0, 0.0, 0.0, 0.5, 1.0, 0.0]
    own = [vote(str(n), value, "anna") for n, value in enumerate(both)]
    own += [vote(str(n), value, "ben") for n, value in enumerate(other)]
    own += [vote(str(90 + n), 0.5, NOBODY) for n in range(5)]
    found = vote_agreement(own)
    assert found is not None and found.rated == 6 and found.raters == ("anna", "ben")
    from sklearn.metrics import cohen_kappa_score

    words = {1.0: "a", 0.5: "t", 0.0: "b"}
    theirs = cohen_kappa_score([words[v] for v in both], [words[v] for v in other])
    cohen = next(c for c in found.coefficients if "Cohen" in c.name)
    assert cohen.value == pytest.approx(theirs)
    assert vote_agreement([vote("1", 1.0)]) is None


# --- rubrics --------------------------------------------------------------------------------


def test_means_and_differences_of_marks_are_paired_by_row() -> None:
    marks = [
        Mark(f"row {n}", f"row {n}", rater, name, {"correct": value})
        for n in range(12)
        for rater in ("anna", "ben")
        for name, value in (("tuned", 1.0 if n % 4 else 0.5), ("base", 0.5 if n % 3 else 0.0))
    ]
    found = {m.candidate: m.mean for m in means(marks, ["correct"], ["tuned", "base"])}
    assert found["tuned"].estimate == pytest.approx(0.875) and found["tuned"].n == 12
    (gap,) = mark_differences(marks, ["correct"], ["tuned", "base"])
    assert gap.difference.estimate == pytest.approx(0.875 - 1 / 3)
    assert gap.difference.low > 0 and gap.difference.n == 12


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("correct", "it is no mapping"),
        ({"name": "Correct!", "levels": ["a", "b"]}, "its name needs"),
        ({"name": "row", "levels": ["a", "b"]}, "'row' is taken"),
        ({"name": "ok", "levels": ["a"]}, "from 2 to 20 levels"),
        ({"name": "ok", "levels": ["a", "A "]}, "the same"),
        ({"name": "ok", "level": ["a", "b"]}, "unknown key 'level'"),
    ],
)
def test_a_wrong_rubric_is_one_sentence(entry: object, why: str) -> None:
    with pytest.raises(DataError, match="criterion 1") as caught:
        criteria_from([entry])
    assert why in caught.value.sentence()


def test_a_level_is_read_by_name_or_number() -> None:
    one = Criterion("correct", "", ("wrong", "partly right", "right"))
    assert [one.level_of(w) for w in ("Right", "1", "partly  right", "2.0")] == [2, 0, 1, 1]
    with pytest.raises(ValueError, match="did you mean 'right'"):
        one.level_of("rigth")
    with pytest.raises(ValueError, match="no level of correct"):
        one.level_of("4")
    assert [one.value(level) for level in range(3)] == [0.0, 0.5, 1.0]


def test_a_rubric_that_is_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rubric.yaml"
    path.write_text("- {name: [")
    with pytest.raises(DataError, match="the rubric can't be read"):
        rubric.read_rubric(path)


# --- samples and sides ----------------------------------------------------------------------


def answered(count: int) -> list[Answered]:
    return [
        Answered(f"{n:03}", f"{n:03}", "abc"[n % 3 if n < 30 else 0],
                 {"tuned": str(n), "base": str(n if n % 2 else -n - 1)})
        for n in range(count)
    ]  # fmt: skip


def test_samples_are_drawn_by_seed_and_do_what_their_name_says() -> None:
    rows, names = answered(60), ["tuned", "base"]
    assert all(row.differs(names) for row in draw(rows, names, "differ"))
    assert len(draw(rows, names, "differ")) == 30 and len(draw(rows, names, "all")) == 60
    some = draw(rows, names, "random", 20)
    assert len(some) == 20 and some == draw(list(reversed(rows)), names, "random", 20)
    assert some != draw(rows, names, "random", 20, seed=8)
    parts = draw(rows, names, "stratified", 12)
    counted = sorted(row.stratum for row in parts)
    assert [counted.count(name) for name in "abc"] == [8, 2, 2]  # 40, 10, 10 of 60


def test_sides_are_even_and_orders_differ_by_rater() -> None:
    left = [left_is_first("secret", f"task {n}") for n in range(1000)]
    assert 440 < sum(left) < 560
    assert left != [left_is_first("other", f"task {n}") for n in range(1000)]
    orders = [rater_order(range(50), name, 7) for name in ("anna", "ben")]
    assert orders[0] != orders[1] and sorted(orders[0]) == list(range(50))
    assert orders[0] == rater_order(range(50), "anna", 7)


# --- sheets ---------------------------------------------------------------------------------


def test_no_cell_is_a_formula_and_none_breaks_the_sheet(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain", 'a\nb, "c"', "x" * 40_000]
    data = sheet.write(("row", "input"), [{"row": "r", "input": text} for text in texts])
    assert data.startswith(b"\xef\xbb\xbf") and b"\r\n" in data
    path = tmp_path / "s.csv"
    path.write_bytes(data)
    import csv

    with path.open(encoding="utf-8-sig", newline="") as stream:
        cells = [row["input"] for row in csv.DictReader(stream)]
    assert [cell[0] for cell in cells[:5]] == ["'"] * 5
    assert cells[5:7] == texts[5:7]
    assert len(cells[7]) == sheet.CELL and "cut" in cells[7]


@pytest.mark.parametrize(
    ("encoding", "delimiter"),
    [("utf-8-sig", ","), ("cp1252", ";"), ("utf-16", "\t"), ("utf-8", ";")],
)
def test_what_spreadsheets_save_is_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    lines = [("row", "input", "A", "B", "better", "comment", "seconds")]
    lines += [("r1", "ü", "x", "y", "a", "größer", "3,5"), ("r2", "z", "x", "y", "TIE", "", "")]
    text = "".join(delimiter.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines)
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode(encoding))
    read = sheet.read(path, ())
    assert read.problems == []
    assert [(f.row, f.side, f.comment, f.seconds) for f in read.filled] == [
        ("r1", "left", "größer", 3.5), ("r2", "tie", "", None),
    ]  # fmt: skip


def test_each_wrong_row_is_a_sentence_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(
        "row,input,A,B,better,comment,seconds\n"
        "r1,i,a,b,A,,\n"
        "r1,i,a,b,B,,\n"
        "r2,i,a,b,maybe,,\n"
        "r3,i,a,b,,,\n"
        "r4,i,a,b,B,,soon\n"
        "r5,i,a,b,,I can't say,\n"
        "r6,i,a\n"
        "r7,i,a,b,skip,,\n"
    )
    read = sheet.read(path, ())
    assert [(f.row, f.skip) for f in read.filled] == [("r1", False), ("r7", True)]
    assert read.empty == 1
    assert [(p.line, p.why) for p in read.problems] == [
        ("3", "row 'r1' stands in line 2 already"),
        ("4", "better is 'maybe', not A, B or tie"),
        ("6", "seconds is 'soon', not a number"),
        ("7", "it has a comment but no judgement"),
        ("8", "3 columns instead of 7"),
    ]


def test_a_rubric_sheet_needs_every_criterion(tmp_path: Path) -> None:
    criteria = criteria_from(
        [{"name": "correct", "levels": ["no", "yes"]}, {"name": "clear", "levels": ["no", "yes"]}]
    )
    assert sheet.columns(criteria, reference=True) == (
        "row", "input", "reference", "answer", "correct", "clear", "comment", "seconds",
    )  # fmt: skip
    path = tmp_path / "s.csv"
    path.write_text("row,input,answer,correct,clear\nr1,i,a,yes,2\nr2,i,a,yes,\nr3,i,a,,\n")
    read = sheet.read(path, criteria)
    assert dict(read.filled[0].levels) == {"correct": 1, "clear": 1} and read.empty == 1
    assert [p.why for p in read.problems] == ["clear is not marked"]
    path.write_text("row,input,answer,corect\nr1,i,a,yes\n")
    with pytest.raises(DataError, match="'correct' is missing"):
        sheet.read(path, criteria)
