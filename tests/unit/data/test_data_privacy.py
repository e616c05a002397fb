"""Identifiers are found by kind, plain words are left, and no text breaks the search."""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import planted

from tutelage.data.privacy import checks
from tutelage.data.privacy.detect import detect, redact_text
from tutelage.data.privacy.fields import kind_of_field
from tutelage.data.privacy.kinds import KINDS, Span, settle

FOUND = [
    ("name", "My name is Margaret Featherstone.", "Margaret Featherstone"),
    ("name", "my name is priya okonkwo.", "priya okonkwo"),
    ("name", "MY NAME IS WEI NAKAMURA", "WEI NAKAMURA"),
    ("name", "She was seen by Dr. Kumar today.", "Kumar"),
    ("name", "Doctor Ferguson's notes", "Ferguson"),
    ("name", "Dear Mr. van der Berg,", "van der Berg"),
    ("name", "I talked to Sarah about it.", "Sarah"),
    ("name", "The letter is from José García-Márquez.", "José García-Márquez"),
    ("name", "It was signed by Ingrid Lindqvist yesterday", "Ingrid Lindqvist"),
    ("name", "Kind regards,\nRosalind O'Hara\n", "Rosalind O'Hara"),
    ("name", "Evaluated by Obinna Xu, MD", "Obinna Xu"),
    ("name", "Hi Gina, how are you?", "Gina"),
    ("place", "I live at 4821 Maple Street", "4821 Maple Street"),
    ("place", "i live at 12 old mill road please", "12 old mill road"),
    ("place", "Send it to 221B Baker Street, London.", "221B Baker Street, London"),
    ("place", "She was born in Munich, Germany.", "Munich"),
    ("place", "My zip code is 94110", "94110"),
    ("place", "Springfield, IL 62704", "62704"),
    ("place", "Wir wohnen Hauptstraße 12, 10115 Berlin", "Hauptstraße 12, 10115 Berlin"),
    ("place", "The postcode is SW1A 1AA", "SW1A 1AA"),
    ("place", "He lives in Santa Cruz with her", "Santa Cruz"),
    ("place", "P.O. Box 1234", "P.O. Box 1234"),
    ("date", "I was born on 03/14/1961.", "03/14/1961"),
    ("date", "admitted 2008-07-31 at noon", "2008-07-31"),
    ("date", "on July 31, 2008 it began", "July 31, 2008"),
    ("date", "the 3rd of July 2008", "3rd of July 2008"),
    ("date", "on July thirty first it began", "July thirty first"),
    ("date", "seen in March 2008", "March 2008"),
    ("date", "last surgery in 07/2007", "07/2007"),
    ("date", "a 93-year-old woman", "93"),
    ("date", "she is ninety two years old", "ninety two"),
    ("phone", "Call me on +1 (555) 555-0142.", "+1 (555) 555-0142"),
    ("phone", "call (555) 234-4567", "(555) 234-4567"),
    ("phone", "my number is 0171 946 0018, mobile", "0171 946 0018"),
    ("phone", "phone: 555 0142", "555 0142"),
    ("fax", "Fax: 212-555-0143", "212-555-0143"),
    ("email", "Write to margaret@example.org.", "margaret@example.org"),
    ("email", "write to jo at example dot org", "jo at example dot org"),
    ("ssn", "My SSN is 512-44-9812.", "512-44-9812"),
    ("ssn", "social security number 512449812", "512449812"),
    ("record", "My record is MRN 48219934.", "48219934"),
    ("record", "medical record number: A-99812", "A-99812"),
    ("plan", "member ID XGH901233", "XGH901233"),
    ("plan", "Medicare number 1EG4-TE5-MK73", "1EG4-TE5-MK73"),
    ("account", "card 4111 1111 1111 1111 expired", "4111 1111 1111 1111"),
    ("account", "IBAN DE89 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130 00"),
    ("account", "account number 00123456", "00123456"),
    ("licence", "driver's license number D123-4567", "D123-4567"),
    ("licence", "DEA number AB1234563", "AB1234563"),
    ("vehicle", "the VIN is 1M8GDM9AXKP042788", "1M8GDM9AXKP042788"),
    ("vehicle", "license plate 7ABC123", "7ABC123"),
    ("device", "serial number SN-99812-X", "SN-99812-X"),
    ("device", "MAC 00:1B:44:11:3A:B7", "00:1B:44:11:3A:B7"),
    ("url", "My page is https://example.com/u/123456.", "https://example.com/u/123456"),
    ("ip", "My IP address is 192.168.14.7.", "192.168.14.7"),
    ("ip", "from 2001:db8::8a2e:370:7334 again", "2001:db8::8a2e:370:7334"),
    ("biometric", "fingerprint template 88A10-2", "88A10-2"),
    ("photo", "see IMG_2031.jpg attached", "IMG_2031.jpg"),
    ("photo", "![me](face.png)", "![me](face.png)"),
    ("other", "passport C01X00T47", "C01X00T47"),
    ("other", "id 123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
    ("other", "order number 99812-7", "99812-7"),
]

LEFT = [
    "My card ending in 4521 was declined, can I top up again?",
    "May I get a refund? Will my Grace period end? I may march on.",
    "I withdrew 500 euros on Monday at 14:30 and again 3 days later.",
    "The exchange rate was 1.2034 and the fee 12,345.67.",
    "It's 2018, why does a transfer take 24/7 support and 5-7 days?",
    "I live in the UK and my bank is in New York.",
    "My name is wrong on the card, it is misspelled.",
    "I am worried. I'm Trying again. This Is Urgent!",
    "He has Crohn's disease, Bell's palsy and Parkinson's.",
    "Blood pressure was 120/80, pain 7/10, code E11.65, 12.5 mg twice.",
    "Mark the box and Bill me later, said the bank.",
    "Version 1.2.3.4 of the app fails, see section 3.1.",
    "Doctor: It looks like the patient: I came for a refill.",
    "He drinks 2-3 beers and is 76 years old, weighs 93 kg.",
    "The patients were from Germany and North Carolina.",
    "Can I use Apple Pay or Google Pay with my Visa or Mastercard?",
    "What is 3/4 of 1/2 pound?",
    "",
]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND, ids=[f"{k}: {v}" for k, _, v in FOUND])
def test_each_kind_is_found_whole(kind: str, text: str, value: str) -> None:
    found = [(span.kind, text[span.start : span.end]) for span in detect(text)]
    assert (kind, value) in found


@pytest.mark.parametrize("text", LEFT)
def test_plain_words_figures_and_eponyms_are_left(text: str) -> None:
    assert [(s.kind, text[s.start : s.end], s.reason) for s in detect(text)] == []


def test_every_kind_has_a_case_and_reasons_never_quote() -> None:
    assert {kind for kind, _, _ in FOUND} == set(KINDS)
    for _, text, _ in FOUND:
        for span in detect(text):
            assert text[span.start : span.end].lower() not in span.reason.lower()


@pytest.mark.parametrize("seed", range(3))
def test_planted_identifiers_are_found(shared_data: Path, seed: int) -> None:
    rows = planted.plant(planted.read_banking77(shared_data), seed)
    missed = [
        text for at, text in rows.identifiers.items() if text in redact_text(rows.rows[at][0])
    ]
    assert len(missed) <= len(rows.identifiers) * 0.05, missed


def test_real_bank_rows_hold_hardly_any(shared_data: Path) -> None:
    rows = planted.read_banking77(shared_data)
    flagged = [text for text, _ in rows if detect(text)]
    assert len(flagged) < len(rows) * 0.005, flagged[:20]


def test_real_dialogues_give_their_names_and_dates(shared_data: Path) -> None:
    path = shared_data / "mts-dialog" / "MTS-Dialog-ValidationSet.csv"
    with path.open(encoding="utf-8-sig", newline="") as stream:
        texts = [row["dialogue"] + "\n" + row["section_text"] for row in csv.DictReader(stream)]
    kinds = [span.kind for text in texts for span in detect(text)]
    assert kinds.count("name") >= 5
    assert kinds.count("date") >= 5
    assert set(kinds) <= {"name", "date", "place"}  # nothing there has a number of any other kind


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_the_search(text: str) -> None:
    spans = detect(text)
    assert all(0 <= a.start < a.end <= len(text) for a in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    redact_text(text)


def test_overlapping_spans_become_one_that_covers_both() -> None:
    both = settle([Span(0, 8, "other", 0.6, "a"), Span(4, 12, "phone", 0.9, "b")])
    assert [(s.start, s.end, s.kind) for s in both] == [(0, 12, "phone")]


def test_only_the_kinds_asked_for() -> None:
    text = "Dr. Kumar, 512-44-9812"
    assert [s.kind for s in detect(text, frozenset({"ssn"}))] == ["ssn"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("patient_name", "name"), ("MRN", "record"), ("patientId", "record"), ("dob", "date"),
        ("e-mail", "email"), ("Home Phone", "phone"), ("ip_address", "ip"), ("address", "place"),
        ("text", None), ("label", None), ("name", None), ("section_header", None), ("id", None),
    ],
)  # fmt: skip
def test_what_a_column_is_called_says_what_is_in_it(name: str, kind: str | None) -> None:
    assert kind_of_field(name) == kind
    if kind == "record":
        assert [s.kind for s in detect("00812", field=name)] == ["record"]


def test_checksums_against_published_examples() -> None:
    assert checks.card("4111111111111111") and not checks.card("4111111111111112")
    assert checks.iban("GB82 WEST 1234 5698 7654 32")
    assert not checks.iban("GB82 WEST 1234 5698 7654 33")
    assert checks.vin("1M8GDM9AXKP042788") and not checks.vin("1M8GDM9A1KP042788")
    assert checks.dea("AB1234563") and not checks.dea("AB1234564")
    assert checks.npi("1234567893") and not checks.npi("1234567890")
    assert checks.cpf("52998224725") and not checks.cpf("52998224724")


def test_without_a_key_identifiers_are_gone_for_good() -> None:
    said = "mail anna.b@example.co.uk, ssn 123-45-6789, card 4111111111111111"
    assert redact_text(said) == "mail [EMAIL], ssn [SSN], card [ACCOUNT]"


def test_the_detector_needs_the_standard_library_alone() -> None:
    code = "import tutelage.data.privacy.detect, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"pydantic", "yaml", "numpy", "sqlalchemy", "cryptography"} & loaded


@pytest.mark.parametrize("unit", ["a.", "Aa", "Aa-", "Aa'"])
def test_a_text_without_a_space_takes_no_longer_than_others(unit: str) -> None:
    assert detect(unit * 50_000) == []  # minutes, where time grows with the square
    after = f"{unit * 100} My name is Margaret Featherstone."
    assert [after[s.start : s.end] for s in detect(after)] == ["Margaret Featherstone"]
