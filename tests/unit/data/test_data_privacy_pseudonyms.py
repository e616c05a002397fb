"""Pseudonyms: equal for equal values, back to every byte with the key, useless without it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.errors import ConfigError, Conflict, DataError
from tutelage.data.privacy.files import redact_file_text, restore_file_text
from tutelage.data.privacy.keys import ENVIRONMENT, key_path, load_key, make_key
from tutelage.data.privacy.pseudonyms import TOKEN, Pseudonyms
from tutelage.data.privacy.vault import Vault, VaultFile, locked

KEY = bytes(range(32))


def pseudonyms(**options: object) -> Pseudonyms:
    return Pseudonyms(Vault(KEY), **options)  # type: ignore[arg-type]


# Pieces that identifiers, pseudonyms and the syntax of files are made of.
PIECES = st.sampled_from(
    [
        "My name is Margaret Featherstone", "KUMAR", "Dr. Kumar ", "Dr. KUMAR", "José", " ", "\n",
        '"', "\\", ",", ";", "{", "}", "[", "]", ":", "[NAME_3f2a9c41]", "[NAME_3f2a9c41.2]",
        "[DATE_deadbeef 1948-02-03]", "[NAME_", "512-44-9812", "4111111111111111", "03/14/1961",
        "94110-1234", "12 Maple Street, Springfield, IL 62704", "jo@example.org", "\u2028", "😀",
        "\\u00e9", "mrn", "call +1 (555) 555-0142", "ab", "\t", "\r\n", "\x00", "é",
    ]
)  # fmt: skip
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=14).map("".join)


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=120, deadline=None)
def test_any_text_comes_back(texts: list[str]) -> None:
    tool = pseudonyms(escape=True)
    done = [tool.redact(text).text for text in texts]
    again = [tool.redact(text).text for text in done]
    assert [tool.restore(text) for text in again] == done
    assert [tool.restore(text) for text in done] == texts


@given(TEXTS, st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt", ".md"]))
@settings(max_examples=150, deadline=None)
def test_any_file_comes_back_even_a_broken_one(text: str, suffix: str) -> None:
    tool = pseudonyms(escape=True)
    done = redact_file_text(text, suffix, tool).text
    assert restore_file_text(done, suffix, tool) == text


FIELDS = st.sampled_from(["text", "mrn", "patient_name", "phone", "note"])
VALUES = st.one_of(TEXTS, st.integers(0, 10**16), st.floats(allow_nan=False), st.none())


@given(st.lists(st.dictionaries(FIELDS, VALUES, min_size=1), min_size=1, max_size=4), st.booleans())
@settings(max_examples=100, deadline=None)
def test_json_rows_stay_json_and_come_back(rows: list[dict[str, object]], plain: bool) -> None:
    text = "".join(json.dumps(row, ensure_ascii=plain) + "\n" for row in rows)
    tool = pseudonyms(escape=True)
    done = redact_file_text(text, ".jsonl", tool).text
    assert [set(json.loads(line)) for line in done.split("\n") if line] == [set(r) for r in rows]
    assert restore_file_text(done, ".jsonl", tool) == text


def test_equal_values_are_equal_and_another_spelling_is_told_apart() -> None:
    tool = pseudonyms()
    first = tool.redact("Dr. Kumar and Dr. Kumar and Dr. KUMAR").text
    one, two, three = [token[0] for token in TOKEN.finditer(first)]
    assert one == two
    assert three == f"{one[:-1]}.2]"
    assert tool.restore(first) == "Dr. Kumar and Dr. Kumar and Dr. KUMAR"
    assert Pseudonyms(Vault(bytes(32))).redact("Dr. Kumar").text != tool.redact("Dr. Kumar").text


def test_what_safe_harbor_allows_stays_readable() -> None:
    tool = pseudonyms()
    shown = {
        "born on 03/14/1961": r"\[DATE_[0-9a-f]{8} 1961\]",
        "zip code 94110": r"\[PLACE_[0-9a-f]{8} 941\]",
        "zip code 03601": r"\[PLACE_[0-9a-f]{8} 000\]",
        "a 97-year-old man": r"\[AGE_[0-9a-f]{8} 90\+\]",
        "call (555) 234-4567": r"\[PHONE_[0-9a-f]{8}\]",
    }
    for text, pattern in shown.items():
        assert re.search(pattern, tool.redact(text).text), text


def test_shifted_dates_keep_their_distances_within_a_group() -> None:
    tool = pseudonyms(dates="shift")
    text = "in on 2008-07-01, out on 07/31/2008"
    dates = {
        group: re.findall(r"\d{4}-\d\d-\d\d", tool.redact(text, group=group).text)
        for group in ("anna", "bert")
    }
    from datetime import date

    for found in dates.values():
        first, second = (date.fromisoformat(day) for day in found)
        assert (second - first).days == 30
        assert 1 <= (date(2008, 7, 1) - first).days <= 365
    assert dates["anna"] != dates["bert"]
    again = tool.redact(text, group="anna").text
    assert tool.restore(again) == text


def test_the_projects_own_pseudonyms_are_left_alone_unless_they_are_text() -> None:
    tool = pseudonyms()
    once = tool.redact("My name is Margaret Featherstone, MRN 48219934").text
    assert tool.redact(once).text == once
    strict = Pseudonyms(tool.vault, escape=True)
    twice = strict.redact(once).text
    assert "TEXT_" in twice
    assert strict.restore(twice) == once


def test_a_pseudonym_that_a_text_invents_is_never_given_out() -> None:
    tool = pseudonyms(escape=True)
    mine = tool.redact("Dr. Kumar").text.removeprefix("Dr. ")
    other = Pseudonyms(Vault(KEY), escape=True)
    text = f"as {mine} said"
    kept = other.redact(text).text
    real = other.redact("Dr. Kumar").text
    assert kept == text
    assert mine not in real
    assert other.restore(kept) == text
    assert other.restore(real) == "Dr. Kumar"


def test_numbers_and_escapes_of_json_come_back_as_they_were() -> None:
    text = '{"mrn": 48219934, "text": "Dr. Garc\\u00eda \\/ Dr. García", "n": 5}\n'
    tool = pseudonyms(escape=True)
    done = redact_file_text(text, ".jsonl", tool)
    assert isinstance(json.loads(done.text)["mrn"], str)
    assert json.loads(done.text)["n"] == 5
    assert "Garc" not in done.text
    assert done.counts == {"record": 1, "name": 2}
    assert restore_file_text(done.text, ".jsonl", tool) == text


def test_cells_of_a_table_are_read_by_their_column() -> None:
    text = 'patient_name;note\r\n"O""Neil, Ann";see ""\r\nZola;"Dr. ""X"" Kumar"\r\n'
    tool = pseudonyms(escape=True)
    done = redact_file_text(text, ".csv", tool).text
    assert "Zola" not in done
    assert "Neil" not in done
    assert restore_file_text(done, ".csv", tool) == text


def test_the_vault_tells_nothing_without_its_key(tmp_path: Path) -> None:
    path, key = tmp_path / "p" / "vault.bin", bytes(range(32))
    file = VaultFile.open(path, key)
    text = Pseudonyms(file.vault).redact("Dr. Kumar, 512-44-9812").text
    file.save()
    assert b"Kumar" not in path.read_bytes()
    assert Pseudonyms(VaultFile.open(path, key).vault).restore(text) == "Dr. Kumar, 512-44-9812"
    with pytest.raises(DataError, match="another one made them"):
        VaultFile.open(path, bytes(32))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        VaultFile.open(path, key)
    path.write_bytes(b"not a vault")
    with pytest.raises(DataError, match="damaged"):
        VaultFile.open(path, key)


def test_one_command_at_a_time_makes_pseudonyms(tmp_path: Path) -> None:
    with locked(tmp_path / "vault.bin"):
        with pytest.raises(Conflict, match="another command"), locked(tmp_path / "vault.bin"):
            pass
    with locked(tmp_path / "vault.bin"):
        pass


def test_the_key_lies_outside_and_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    place = key_path("clinic", root)
    assert place == tmp_path / "config" / "tutelage" / "keys" / "clinic.key"
    key = make_key(place)
    assert make_key(place) == load_key(place) == key
    assert place.stat().st_mode & 0o777 == 0o600
    place.chmod(0o644)
    with pytest.raises(DataError, match="chmod 600"):
        load_key(place)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "own.key"))
    assert key_path("clinic", root) == tmp_path / "own.key"
    with pytest.raises(DataError, match="is not there"):
        load_key(tmp_path / "own.key")
    (tmp_path / "own.key").write_text("hello")
    (tmp_path / "own.key").chmod(0o600)
    with pytest.raises(DataError, match="no key"):
        load_key(tmp_path / "own.key")


def test_a_key_inside_the_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "project", target_is_directory=True)
    (tmp_path / "project").mkdir()
    for named in ("the.key", ".tutelage/the.key", tmp_path / "link" / "the.key"):
        with pytest.raises(ConfigError, match="inside the project"):
            key_path("clinic", tmp_path / "project", named)
    assert key_path("clinic", tmp_path / "project", "../the.key").parent.name == ".."
