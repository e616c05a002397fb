"""The main job, end to end, as a person runs it: `python -m tests.smoke`.

Runs `tutelage quickstart` in a fresh folder, then holds its one JSON object against what the demo
promises. Prints the object, and exits 1 with a sentence when a promise is broken.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STAGES = ("curate", "train", "evaluate", "release", "serve", "rollout", "learn")


def problems(result: dict[str, Any], home: Path) -> list[str]:
    """Return a sentence for each promise that `result` breaks."""
    found = []
    primary = result["primary"]
    if result["verdict"] != "pass":
        found.append(f"the verdict is {result['verdict']}")
    if not primary["difference_low"] > 0:
        found.append(f"the interval of the gain reaches zero ({primary['difference_low']})")
    if not primary["tuned"] > max(primary["base"], primary["few_shot"]):
        found.append("the tuned model does not beat both baselines")
    if result["rollout"].get("state") != "promoted":
        found.append(f"the rollout ended {result['rollout'].get('state')}")
    if not result["learned"].get("feedback"):
        found.append("no feedback was kept")
    if result["peak_memory_mb"] > 4096:
        found.append(f"it took {result['peak_memory_mb']} MB")
    found += [f"no time was taken for {s}" for s in STAGES if s not in result["seconds"]]
    if not (home / result["report"]).is_file():
        found.append(f"there is no report at {result['report']}")
    return found


def main() -> int:
    """Run the demo and check it."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "demo"
        command = [str(Path(sys.executable).parent / "tutelage"), "quickstart", str(project)]
        done = subprocess.run(
            [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True, check=False
        )
        print(done.stdout)
        if done.returncode != 0:
            print(f"smoke: quickstart ended with {done.returncode}")
            return 1
        broken = problems(json.loads(done.stdout), project / ".tutelage")
        again = subprocess.run(
            [*command[:1], "run", "--project", str(project), "--json"],
            stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        skipped = json.loads(again.stdout)["skipped"] if again.returncode == 0 else []
        if skipped != ["curate", "train", "evaluate", "release"]:
            broken.append(f"a second run repeated work: only {skipped} was skipped")
    for sentence in broken:
        print(f"smoke: {sentence}")
    print(f"{len(STAGES) + 5 - len(broken)} passed, {len(broken)} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
