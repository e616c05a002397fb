"""The MLflow registry: one version a release, aliases that move, and not a word on the terminal."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tutelage.core.errors import EnvironmentProblem
from tutelage.release import mlflow

pytestmark = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")

_SCRIPT = """
import sys
from pathlib import Path
from tutelage.release import mlflow as registry
home = Path(sys.argv[1])
uri, folder = f"sqlite:///{home / 'mlflow.db'}", home / "release"
folder.mkdir()
tags = {"release": "a" * 64, "verdict": "pass"}
version = registry.Version("colours", folder, tags, "Better.", about="Releases of colours.")
one = registry.register_version(uri, version)
assert registry.register_version(uri, version) == one == "1"
two = registry.register_version(uri, registry.Version("colours", folder, {"release": "b" * 64}))
with registry.client(uri) as client:
    client.set_registered_model_alias("colours", "by-hand", one)
registry.set_aliases(uri, "colours", {"stable": one, "candidate": two, "eu-stable": two})
registry.set_aliases(uri, "colours", {"stable": two})
found = registry.describe_model(uri, "colours")
assert found["aliases"] == {"stable": two, "by-hand": one}, found
assert found["versions"]["1"]["tags"] == tags, found
assert found["versions"]["1"]["source"] == str(folder), found
assert found["versions"]["1"]["description"] == "Better.", found
try:
    registry.describe_model(uri, "nothing")
except Exception as error:
    assert type(error).__name__ == "EnvironmentProblem", error
    assert "not found" in str(error), error
assert "torch" not in sys.modules and "transformers" not in sys.modules
assert sorted(p.name for p in home.iterdir()) == ["mlflow.db", "release"]
"""


def test_versions_tags_and_aliases_in_silence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_mlflow_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name == "mlflow" or name.startswith("mlflow."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    version = mlflow.Version("x", tmp_path, {"release": "a"})
    with pytest.raises(EnvironmentProblem, match=r"MLflow can't be imported .*Run `pip install"):
        mlflow.register_version(f"sqlite:///{tmp_path}/m.db", version)
