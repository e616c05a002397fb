"""No identifier of any kind survives redaction: not in a file, a database, a log or on a screen.

Rows with identifiers are good, duplicated, quarantined, mended, or broken; then every byte under
.tutelage and everything printed is searched for them. Only the user's own files may hold them.
"""

from __future__ import annotations

import json
import os
import re
import stat
import traceback
import urllib.request
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.workflows.serving.serve import Serving

MakeProject = Callable[..., Path]

# By kind: the identifier, and a sentence around it.
PLANTED = {
    "name": ("Margaret Featherstone", "My name is {}."),
    "place": ("4821 Hillcrest Avenue", "I live at {}."),
    "zip": ("94117", "My zip code is {}."),
    "date": ("03/14/1961", "I was born on {}."),
    "spoken date": ("July thirty first", "It began on {}."),
    "phone": ("(555) 234-4567", "Call me on {}."),
    "fax": ("212-555-0143", "My fax is {}."),
    "email": ("margaret.f@example.org", "Write to {}."),
    "ssn": ("512-44-9812", "My SSN is {}."),
    "record": ("48219934", "My record is MRN {}."),
    "plan": ("XGH901233", "My member ID is {}."),
    "account": ("4111 1111 1111 1111", "The card {} was charged."),
    "iban": ("DE89370400440532013000", "The IBAN is {}."),
    "licence": ("D123-4567-89", "My driver's license number is {}."),
    "vehicle": ("1M8GDM9AXKP042788", "The VIN is {}."),
    "plate": ("7ABC123", "My license plate is {}."),
    "device": ("SN-99812-XK", "The serial number is {}."),
    "url": ("https://example.com/u/mfeather", "My page is {}."),
    "ip": ("203.0.113.77", "I come from {}."),
    "biometric": ("FP-88A10-2291", "My fingerprint template is {}."),
    "photo": ("featherstone_face.jpg", "See {} of me."),
    "other": ("C01X00T47", "My passport is {}."),
}
IN_COLUMNS = {"patient_name": "Zebulon Quackenbush", "mrn": 77120031, "customer": "cust-00981"}
# What must not be found: the identifiers and their telling parts.
SECRETS = [
    *(value for value, _ in PLANTED.values()), "Featherstone", "Hillcrest", "1961-03-14",
    "234-4567", "margaret.f", "Zebulon", "Quackenbush", "77120031", "cust-0098", "Kowalsk",
    "Lindqvist", "García", "Garc\\u00eda",
]  # fmt: skip

CONFIG = """\
name: clinic
task: classification
model: demo
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
  splits: {group: customer}
  privacy: {mode: redact}
"""


def rows() -> str:
    said = [sentence.format(value) for value, sentence in PLANTED.values()]
    good = [
        {"text": f"{text} Which colour has thing {i}?", "label": "warm" if i % 2 else "cold",
         "customer": f"cust-{i:05d}", "time": "1961-03-14"}
        for i, text in enumerate(said * 3)
    ]  # fmt: skip
    good[0] |= IN_COLUMNS
    good += [{**good[5], "customer": "cust-00005"}]  # an exact duplicate
    good += [{**good[7], "text": good[7]["text"].replace("thing", "tihng")}]  # a near one
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(good)]
    everything = " ".join(said)
    lines += [
        f'{{"text": "{everything}", "label": ',  # broken JSON
        json.dumps({"text": everything, "label": "Ingrid Lindqvist", "customer": "cust-00981"}),
        json.dumps({"text": "", "label": "warm", "customer": "cust-00982", **IN_COLUMNS}),
        json.dumps({"text": f"{everything} cut", "label": "warm"}),  # no group
        json.dumps({"text": everything, "label": {"who": "Sven Kowalski"}, "customer": "c"}),
        json.dumps([everything]),  # no object
        f"{{'text': '{said[8]}', 'label': 'warm', 'customer': 'cust-00983',}}",  # mendable
        json.dumps({"text": "My name is JosÃ© GarcÃ­a.", "label": "warm", "customer": "cust-1"}),
        json.dumps({"text": "Dr. José García is here", "label": "warm", "customer": "cust-2"}),
        json.dumps({"text": "x " * 1100 + everything, "label": "wram", "customer": "cust-3"}),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@pytest.fixture
def key_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TUTELAGE_PRIVACY_KEY_FILE", raising=False)
    return tmp_path / "config" / "tutelage" / "keys"


def run(*arguments: str) -> tuple[int, str]:
    """Run the CLI; return its exit code and all it printed."""
    done = CliRunner().invoke(app, list(arguments))
    raised = "".join(traceback.format_exception(done.exception)) if done.exception else ""
    return done.exit_code, done.stdout + done.stderr + raised


# A short number stands in hashes and times by chance, as a part of a longer one.
FOUND = {
    secret: re.compile(rf"(?<![\w.]){secret}(?!\w)" if len(secret) < 8 and secret.isdigit()
                       else re.escape(secret))
    for secret in SECRETS
}  # fmt: skip


def leaks_in(text: str) -> list[str]:
    return [secret for secret, pattern in FOUND.items() if pattern.search(text)]


def test_a_leak_is_found_as_a_whole_number_alone() -> None:
    assert leaks_in("My zip code is 94117. Thanks") == ["94117"]
    assert leaks_in('{"zip": "94117"}, [94117]') == ["94117"]
    assert leaks_in("a94117bc 1.94117 941170") == []


def leaks_under(folder: Path) -> list[tuple[str, str]]:
    """Return (file, identifier) for every identifier in the bytes of every file."""
    return [
        (str(path.relative_to(folder)), secret)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for secret in leaks_in(path.read_bytes().decode("utf-8", "replace"))
    ]


def test_curation_in_mode_redact_keeps_no_identifier(
    make_project: MakeProject, key_home: Path
) -> None:
    root = make_project({"rows.jsonl": rows(), "more.csv": "text,label,customer\n1,2\n"}, CONFIG)
    printed = []
    for command in (
        ("data", "check", "--json"), ("data", "check", "-v"), ("data", "split"), ("data", "report"),
        ("data", "quarantine"), ("data", "check", "--fix"), ("data", "repairs"),
        ("data", "split", "-v"), ("data", "quarantine", "--json"),
    ):  # fmt: skip
        code, out = run(*command, "--project", str(root))
        printed.append(out)
        assert leaks_in(out) == [], command
        assert code in (0, 2) or "-v" in command, out
    datasets = list((root / ".tutelage" / "artifacts" / "datasets").glob("*/manifest.json"))
    manifest = json.loads(max(datasets, key=lambda path: path.stat().st_mtime).read_text())
    assert manifest["privacy"]["rows"] > 60
    assert set(manifest["privacy"]["kinds"]) >= {
        "name", "place", "date", "phone", "fax", "email", "ssn", "record", "plan", "account",
        "licence", "vehicle", "device", "url", "ip", "biometric", "photo", "other",
    }  # fmt: skip
    assert sum(manifest["counts"].values()) > 60
    assert manifest["lost"]["quarantined"] >= 5
    assert leaks_under(root / ".tutelage") == []
    assert (key_home / "clinic.key").stat().st_mode & 0o777 == 0o600
    secret = (key_home / "clinic.key").read_text().split()[1]
    assert all(secret not in out for out in printed)


def test_nothing_usable_is_said_without_identifiers(
    make_project: MakeProject, key_home: Path
) -> None:
    bad = json.dumps({"text": "hi", "label": "Ingrid Lindqvist", "customer": "cust-00981"})
    root = make_project({"rows.jsonl": bad + "\n"}, CONFIG)
    for command in (("data", "check"), ("data", "split", "-v"), ("data", "split", "--json")):
        code, out = run(*command, "--project", str(root))
        assert code != 0
        assert leaks_in(out) == []
    assert leaks_under(root / ".tutelage") == []


def test_a_table_without_a_header_names_no_column_by_its_identifier(
    make_project: MakeProject, key_home: Path
) -> None:
    lines = "".join(f"My name is Ingrid Lindqvist {i},warm\n" for i in range(20))
    root = make_project({"rows.csv": lines}, CONFIG.replace("  splits: {group: customer}\n", ""))
    _, out = run("data", "check", "--project", str(root))
    assert leaks_in(out) == []
    _, out = run("data", "split", "-v", "--project", str(root))
    assert leaks_in(out) == []
    assert leaks_under(root / ".tutelage") == []


def test_files_go_and_come_back_with_the_key_alone(
    make_project: MakeProject, key_home: Path, tmp_path: Path
) -> None:
    root = make_project({"rows.jsonl": rows()}, CONFIG)
    source = root / "data" / "rows.jsonl"
    code, out = run("data", "redact", "--dry-run", "--project", str(root), "--json")
    assert code == 0
    assert json.loads(out.split("\n")[0])["files"][0]["found"]["name"] > 3
    assert leaks_in(out) == []
    assert not (root / "redacted").exists()
    code, out = run("data", "redact", "--project", str(root))
    assert (code, leaks_in(out)) == (0, [])
    copy = root / "redacted" / "data" / "rows.jsonl"
    assert leaks_in(copy.read_text(encoding="utf-8")) == []
    assert leaks_under(root / ".tutelage") == []
    back = tmp_path / "back.jsonl"
    code, out = run("data", "restore", str(copy), "-o", str(back), "--project", str(root))
    assert (code, leaks_in(out)) == (0, [])
    assert back.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(back.stat().st_mode) == 0o600


def test_turning_redaction_on_keeps_the_sides_and_names_what_is_left(
    make_project: MakeProject, key_home: Path
) -> None:
    lines = [
        json.dumps({"text": f"Dr. Kumar saw thing {i} of {i * 37 % 101}", "label": label})
        for i, label in enumerate(("warm", "cold") * 20)
    ]
    config = CONFIG.replace("  splits: {group: customer}\n", "")
    root = make_project({"rows.jsonl": "\n".join(lines) + "\n"}, config)
    sides = []
    for text in (config.replace("mode: redact", "mode: flag"), config):
        (root / "tutelage.yaml").write_text(text)
        code, out = run("data", "split", "--json", "--project", str(root))
        assert code == 0, out
        folder = Path(json.loads(out.split("\n")[0])["path"])
        found = {
            json.loads(line)["origin"]["source"]: side
            for side in ("train", "validation", "test")
            for line in (folder / f"{side}.jsonl").read_text().splitlines()
        }
        sides.append(found)
    assert sides[0] == sides[1]
    findings = {f["id"]: f for f in json.loads((folder / "manifest.json").read_text())["findings"]}
    assert findings["D7-X01"]["count"] == 40
    assert findings["D7-X03"]["examples"][0]["detail"].startswith("1: ")
    assert "Kumar" not in (folder / "train.jsonl").read_text()


def test_shifted_dates_of_a_table_keep_their_distance(
    make_project: MakeProject, key_home: Path
) -> None:
    table = "text,label,customer\nin 2008-07-01 out 2008-07-31,warm,a\nin 2008-07-01,cold,b\n"
    root = make_project({"rows.csv": table}, CONFIG)
    assert run("data", "redact", "--shift-dates", "--project", str(root))[0] == 0
    done = (root / "redacted" / "data" / "rows.csv").read_text()
    shifted = re.findall(r" (\d{4}-\d\d-\d\d)\]", done)
    first, second, other = (date.fromisoformat(day) for day in shifted)
    assert (second - first).days == 30
    assert other != first


REFUSED = {
    "the key in the project": (
        ["redact", "{root}/data/a.txt", "--key", "{root}/my.key"],
        "inside the project",
    ),
    "a folder": (["redact", "{root}/data"], "a folder"),
    "no such file": (["redact", "{root}/none.txt"], "no such file"),
    "another format": (["redact", "{root}/data/face.png"], ".png can't be redacted"),
    "over itself": (["redact", "{root}/data/a.txt", "-o", "{root}/data/a.txt"], "itself"),
    "nothing to restore": (["restore", "{root}/data/a.txt", "-o", "{tmp}/x.txt"], "no pseudonyms"),
    "restore into .tutelage": (
        ["restore", "{root}/data/a.txt", "-o", "{root}/.tutelage/x.txt"],
        "may not lie in .tutelage",
    ),
    "restore unasked": (["restore", "{root}/data/a.txt"], "--output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_one_sentence(
    make_project: MakeProject, key_home: Path, tmp_path: Path, name: str
) -> None:
    root = make_project({"a.txt": "Dr. Kumar\n", "face.png": b"\x89PNG\0"}, CONFIG)
    arguments, said = REFUSED[name]
    filled = [part.format(root=root, tmp=tmp_path) for part in arguments]
    code, out = run("data", *filled, "--project", str(root))
    assert code == 2
    assert said in " ".join(out.split())
    assert out.startswith("error: ")


def test_another_key_or_none_restores_nothing(
    make_project: MakeProject, key_home: Path, tmp_path: Path
) -> None:
    root = make_project({"a.txt": "Dr. Kumar\n", "rows.jsonl": rows()}, CONFIG)
    source = root / "data" / "a.txt"
    assert run("data", "redact", str(source), "--project", str(root))[0] == 0
    copy, back = root / "redacted" / "data" / "a.txt", tmp_path / "b.txt"
    restore = ("data", "restore", str(copy), "-o", str(back), "--project", str(root))
    os.rename(key_home / "clinic.key", tmp_path / "moved.key")
    code, out = run(*restore)
    assert (code, "is not there" in out) == (2, True)
    assert run("data", "split", "--project", str(root))[0] == 2  # never a second key
    assert not (key_home / "clinic.key").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "tutelage.yaml").write_text(CONFIG.replace("clinic", "other"))
    assert run("data", "redact", str(source), "--project", str(other))[0] == 0
    code, out = run(*restore, "--key", str(key_home / "other.key"))
    assert (code, "another one made them" in " ".join(out.split())) == (2, True)
    code, out = run(*restore, "--key", str(tmp_path / "moved.key"))
    assert code == 0
    assert back.read_text() == "Dr. Kumar\n"


def test_an_unknown_kind_or_detector_names_the_nearest(
    make_project: MakeProject, key_home: Path
) -> None:
    for setting, said in (("kinds: [nmae]", "'name'"), ("detector: rulez", "'rules'")):
        config = CONFIG.replace("mode: redact", f"mode: flag, {setting}")
        root = make_project({"a.jsonl": '{"text": "a", "label": "warm", "customer": 1}\n'}, config)
        code, out = run("data", "check", "--project", str(root))
        assert code == 2
        assert said in out


def test_redacted_request_logs_keep_no_identifier(tmp_path: Path) -> None:
    said = " ".join(sentence.format(value) for value, sentence in PLANTED.values())
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url, redact=True)
        serving = Serving(ctx)
        with serving:
            body = {
                "model": "colours",
                "messages": [{"role": "user", "content": said}],
                "user": "margaret.f@example.org",
            }
            answer = _post(f"{serving.base_url}/v1/chat/completions", body)
            feedback = {"record_id": answer["id"], "rating": "down", "comment": said}
            _post(f"{serving.base_url}/v1/feedback", feedback)
        ctx.store.close()
    assert leaks_under(tmp_path / "project" / ".tutelage") == []


def _post(url: str, body: dict[str, object]) -> dict[str, str]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        found: dict[str, str] = json.load(response)
    return found


def test_items_for_experts_hold_no_identifiers(make_project: MakeProject, key_home: Path) -> None:
    root = make_project({"rows.jsonl": rows()}, CONFIG)
    new = root / "new.jsonl"
    said = [sentence.format(value) for value, sentence in PLANTED.values()]
    items = [{"text": text, "customer": f"cust-{i:05d}"} for i, text in enumerate(said)]
    new.write_text("".join(json.dumps(item) + "\n" for item in items))
    assert run("data", "label", "people", "--add", "anna", "--project", str(root))[0] == 0
    assign = ("assign", "--to", "anna", "--source", "file", "--file", str(new))
    code, shown = run("data", "label", *assign, "--project", str(root))
    assert (code, leaks_in(shown)) == (0, []), shown
    code, shown = run("data", "label", "todo", "anna", "--project", str(root))
    assert code == 0 and "[EMAIL_" in shown
    assert leaks_in(shown) == []
    assert leaks_under(root / ".tutelage") == []
