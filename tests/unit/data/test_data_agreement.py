"""Agreement against the packages people know, published figures, and what a report says of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.errors import DataError
from tutelage.data.annotation.card import agreement_sections
from tutelage.data.quality.agreement import agreement, wilson
from tutelage.data.quality.coefficients import (
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
    percent_agreement,
)
from tutelage.data.quality.ratings import Ratings, encode, read_columns, read_long

Codes = NDArray[np.int64]
PUBMED = ("final_decision", "reasoning_required_pred", "reasoning_free_pred")


@st.composite
def matrices(draw: st.DrawFn, missing: bool = False) -> tuple[Codes, int]:
    """Codes (R, N) and the number of categories; -1 is missing."""
    k = draw(st.integers(2, 5))
    raters, items = draw(st.integers(2, 5)), draw(st.integers(2, 25))
    low = -1 if missing else 0
    row = st.lists(st.integers(low, k - 1), min_size=items, max_size=items)
    return np.array([draw(row) for _ in range(raters)], dtype=np.int64), k


def close(ours: float, theirs: float) -> bool:
    return (np.isnan(ours) and np.isnan(theirs)) or abs(ours - theirs) < 1e-9


@given(matrices(missing=True))
@settings(max_examples=80, deadline=None)
def test_alpha_equals_the_krippendorff_package(made: tuple[Codes, int]) -> None:
    codes, _ = made
    assume(((codes >= 0).sum(axis=0) >= 2).any())
    paired = codes[:, (codes >= 0).sum(axis=0) >= 2]
    assume(len(np.unique(paired[paired >= 0])) > 1)
    data = np.where(codes < 0, np.nan, codes)
    for level in ("nominal", "ordinal", "interval"):
        theirs = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
        assert close(krippendorff_alpha(codes, level), theirs), level  # type: ignore[arg-type]


@given(matrices())
@settings(max_examples=80, deadline=None)
def test_cohen_equals_scikit_learn(made: tuple[Codes, int]) -> None:
    codes, k = made
    for weights in (None, "linear", "quadratic"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where kappa is undefined
            theirs = cohen_kappa_score(codes[0], codes[1], labels=range(k), weights=weights)
        assert close(cohen_kappa(codes[0], codes[1], weights), theirs), weights  # type: ignore[arg-type]


@given(matrices())
@settings(max_examples=80, deadline=None)
def test_fleiss_equals_statsmodels(made: tuple[Codes, int]) -> None:
    codes, _ = made
    assume(len(np.unique(codes)) > 1)
    assert close(fleiss_kappa(codes), statsmodels_fleiss(aggregate_raters(codes.T)[0]))


def test_ac1_on_the_published_paradox() -> None:
    """Gwet (2002): 118, 5, 2 and 0 of 125; kappa is below 0, AC1 0.941."""
    codes = np.array([[0] * 123 + [1] * 2, [0] * 118 + [1] * 5 + [0] * 2])
    assert gwet_ac1(codes) == pytest.approx(0.9408, abs=5e-5)
    assert cohen_kappa(*codes) == pytest.approx(-0.0234, abs=5e-5)
    assert percent_agreement(codes) == pytest.approx(118 / 125)


def test_ac1_of_several_raters_with_gaps_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(-1, 3, (4, 40))
    agreed, shares = [], []
    for item in codes.T:
        given_ = item[item >= 0]
        if len(given_) >= 1:
            shares.append([np.mean(given_ == k) for k in range(3)])
        if len(given_) >= 2:
            n = len(given_)
            agreed.append(
                sum(c * (c - 1) for c in (np.sum(given_ == k) for k in range(3))) / (n * (n - 1))
            )
    usual = np.mean(shares, axis=0)
    expected = float((usual * (1 - usual)).sum() / 2)
    assert gwet_ac1(codes, 3) == pytest.approx((np.mean(agreed) - expected) / (1 - expected))


def test_krippendorffs_own_example() -> None:
    """Four observers, twelve units (Krippendorff 2011): 0.743, ordinal 0.815, interval 0.849."""
    codes = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    codes -= 1  # 0 was no answer
    assert krippendorff_alpha(codes) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(codes, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(codes, "interval") == pytest.approx(0.849, abs=5e-4)


def columns(codes: Codes) -> dict[str, list[str | None]]:
    return {f"r{i}": [None if c < 0 else "abcdefgh"[c] for c in row] for i, row in enumerate(codes)}


def made(
    raters: int, items: int, *, hit: float = 0.8, missing: float = 0.0, seed: int = 0, k: int = 3
) -> Ratings:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, items)
    codes = np.where(rng.random((raters, items)) < hit, truth, rng.integers(0, k, (raters, items)))
    codes[rng.random(codes.shape) < missing] = -1
    return encode(columns(codes))


@pytest.mark.parametrize(
    ("ratings", "level", "key", "why"),
    [
        (made(2, 60), "nominal", "cohen", "two raters"),
        (made(2, 60), "ordinal", "cohen_quadratic", "far-off"),
        (made(3, 60), "nominal", "fleiss", "every item answered by all"),
        (made(3, 60, missing=0.3), "nominal", "alpha", "not every item"),
        (made(3, 60), "ordinal", "alpha", "ordered"),
    ],
)
def test_the_coefficient_fits_the_answers(ratings: Ratings, level: str, key: str, why: str) -> None:
    found = agreement(ratings, level=level, resamples=200)  # type: ignore[arg-type]
    assert found.chosen.key == key
    assert why in found.chosen.why
    assert found.chosen.low is not None and found.chosen.high is not None
    assert found.chosen.low <= (found.chosen.value or 0) <= found.chosen.high
    assert f"on {found.chosen.n} items" in found.sentence()


def test_ac1_stands_beside_kappa_where_one_answer_prevails() -> None:
    codes = np.array([[0] * 123 + [1] * 2, [0] * 118 + [1] * 5 + [0] * 2])
    found = agreement(encode(columns(codes)), resamples=200)
    assert [c.key for c in found.coefficients] == ["cohen", "alpha", "percent", "ac1"]
    assert "97%" in found.coefficients[-1].why
    assert "ac1" not in [c.key for c in agreement(made(2, 60), resamples=50).coefficients]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    whole = made(3, 20_000, hit=0.7, missing=0.2, seed=1)
    truth = krippendorff_alpha(whole.codes)
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(100):
        part = whole.codes[:, rng.integers(0, 20_000, 150)]
        sample = Ratings(whole.raters, whole.categories, tuple(map(str, range(150))), part)
        best = agreement(sample, resamples=400, seed=trial).chosen
        inside += (best.low or 1) <= truth <= (best.high or 0)
    assert 88 <= inside <= 100


def test_the_same_seed_gives_the_same_interval() -> None:
    ratings = made(3, 50, missing=0.2)
    assert (
        agreement(ratings, resamples=100).as_dict() == agreement(ratings, resamples=100).as_dict()
    )


def test_labels_pairs_and_confusions_say_where_it_is_weak() -> None:
    first = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    second = ["a"] * 10 + ["b"] * 6 + ["c"] * 4 + ["c"] * 10
    found = agreement(encode({"anna": first, "ben": second}), resamples=100)
    by_label = {one.label: one for one in found.labels}
    assert by_label["a"].agreement == 1.0
    assert by_label["b"].agreement == pytest.approx(2 * 6 / (2 * 6 + 4))
    assert by_label["b"].answers == 16
    assert found.confusions == (("b", "c", 4.0),)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.n) == ("anna", "ben", 30)
    assert pair.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    assert pair.percent == pytest.approx(26 / 30)


def test_full_agreement_is_not_certainty() -> None:
    found = agreement(encode({"x": ["a", "b"] * 10, "y": ["a", "b"] * 10}), resamples=100)
    assert found.chosen.value == 1.0
    (note,) = found.notes
    assert "may be as low as 84%" in note
    assert wilson(20, 20)[0] == pytest.approx(0.8389, abs=1e-4)


def test_one_category_only_has_no_coefficient() -> None:
    found = agreement(encode({"x": ["a"] * 9, "y": ["a"] * 9}), resamples=50)
    assert found.chosen.value is None
    assert found.strength == "unknown"
    assert "only one category was used" in found.sentence()


def test_nothing_that_overlaps_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"two people.*--overlap 2"):
        agreement(encode({"x": ["a", None], "y": [None, "b"]}))


def test_an_interval_scale_needs_numbers() -> None:
    ratings = encode({"x": ["1", "2", "10"], "y": ["1", "2", "9"]})
    assert ratings.categories == ("1", "2", "9", "10")
    assert agreement(ratings, level="interval", resamples=50).chosen.value == pytest.approx(
        krippendorff.alpha(
            reliability_data=[[1, 2, 10], [1, 2, 9]], level_of_measurement="interval"
        )
    )
    with pytest.raises(DataError, match="'b' is not a number"):
        agreement(encode({"x": ["1", "b"], "y": ["1", "b"]}), level="interval")


def test_pubmedqa_has_the_agreement_that_is_known(shared_data: Path) -> None:
    """alpha 0.455 is nominal, over the two annotators; the final decision is not independent."""
    path = shared_data / "pubmedqa" / "ori_pqal.json"
    rows = json.loads(path.read_text())
    raw = [[row[name] for row in rows.values()] for name in PUBMED]
    ratings = read_columns(path, PUBMED, order=["no", "maybe", "yes"])
    assert len(ratings.items) == 1000
    wanted = {(0, 1): 0.602, (0, 2): 0.852, (1, 2): 0.457}
    for (a, b), figure in wanted.items():
        found = agreement(ratings.pair(a, b)).chosen
        assert found.value == pytest.approx(figure, abs=6e-4)
        assert found.value == pytest.approx(cohen_kappa_score(raw[a], raw[b]), abs=1e-9)
    assert krippendorff_alpha(ratings.codes[1:]) == pytest.approx(0.455, abs=5e-4)
    for codes in (ratings.codes[1:], ratings.codes):
        for level in ("nominal", "ordinal", "interval"):
            theirs = krippendorff.alpha(reliability_data=codes, level_of_measurement=level)
            assert krippendorff_alpha(codes, level) == pytest.approx(theirs, abs=1e-9)  # type: ignore[arg-type]
    three = agreement(ratings)
    assert three.chosen.key == "fleiss"
    assert next(c for c in three.coefficients if c.key == "alpha").value == pytest.approx(
        0.639, abs=5e-4
    )


FILES: dict[str, str] = {
    "a.csv": "id,anna,ben\n1,warm,warm\n2,cold,warm\n3,cold,\n4,warm,warm\n",
    "a.tsv": "anna\tben\nwarm\twarm\ncold\twarm\ncold\t\nwarm\twarm\n",
    "a.jsonl": '{"anna": "warm", "ben": "warm"}\n{"anna": "cold", "ben": "warm"}\n'
    '{"anna": "cold", "ben": null}\n{"anna": "warm", "ben": "warm"}\n',
    "a.json": '[{"anna": "warm", "ben": "warm"}, {"anna": "cold", "ben": "warm"}, '
    '{"anna": "cold"}, {"anna": "warm", "ben": "warm"}]',
    "b.json": '{"x": {"anna": "warm", "ben": "warm"}, "y": {"anna": "cold", "ben": "warm"}, '
    '"z": {"anna": "cold"}, "w": {"anna": "warm", "ben": "warm"}}',
}


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_file_gives_the_same_answers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    ratings = read_columns(tmp_path / name, ["anna", "ben"])
    assert ratings.codes.tolist() == [[1, 0, 0, 1], [1, 1, -1, 1]]
    assert ratings.categories == ("cold", "warm")


def test_one_row_an_answer_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("item,who,label\n1,anna,warm\n1,ben,cold\n2,anna,warm\n1,ben,warm\n")
    ratings = read_long(path, ["item", "who", "label"])
    assert ratings.raters == ("anna", "ben")
    assert ratings.codes.tolist() == [[0, 0], [0, -1]]  # the later answer counts


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `tutelage data agree` on a small file."""
    path = tmp_path / "answers.csv"
    path.write_text("anna,ben,stars\n" + "warm,warm,1\ncold,warm,3\nwarm,cold,2\n" * 6)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["data", "agree", str(path), *arguments])
        return done.exit_code, done.stdout, " ".join(done.stderr.split())

    return run


def test_the_command_prints_the_sentence_and_the_reason(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = call("--columns", "anna,ben", "--html", str(tmp_path / "a.html"))
    assert code == 0
    assert "Cohen's kappa" in out and "because: two raters" in " ".join(out.split())
    page = (tmp_path / "a.html").read_text()
    assert "disagree too often" in page and "Labels that are mixed up" in page
    code, out, _ = call("--columns", "anna,ben", "--json")
    assert json.loads(out)["chosen"] == "cohen"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("--columns", "anna,bem"), ("no column 'bem'", "'ben'")),
        (("--columns", "anna"), ("two columns",)),
        ((), ("which columns",)),
        (("--columns", "anna,ben", "--level", "ordinal"), ("order of its values", "--order")),
        (("--columns", "anna,ben", "--level", "ordinal", "--order", "warm"), ("'cold'",)),
        (("--columns", "anna,ben", "--level", "nominl"), ("'nominl' is no level",)),
        (("--long", "anna,ben"), ("three columns",)),
    ],
)
def test_bad_requests_get_one_sentence(
    call: Callable[..., tuple[int, str, str]],
    arguments: tuple[str, ...],
    fragments: tuple[str, ...],
) -> None:
    code, _, err = call(*arguments)
    assert code == 2 and "Traceback" not in err
    for fragment in fragments:
        assert fragment in err


def test_a_report_shows_an_expert_where_to_look() -> None:
    parts = agreement_sections(agreement(made(3, 40, hit=0.6), resamples=50))
    text = "".join(parts)
    for heading in ("Agreement beyond chance", "weakest first", "Every two people", "mixed up"):
        assert heading in text
