"""A training job and its outcome as files, so that other processes can do it: JSON, no pickles.

Written under `<run_dir>/job/`: job.json, train.jsonl and validation.jsonl before, result.json or
error.json afterwards. The weights and the checkpoints lie where session.py puts them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tutelage.core import errors
from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.core.workspace import atomic_write
from tutelage.inference.models import ModelSource
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.recipe import Recipe

FOLDER = "job"
_JOB, _RESULT, _ERROR = "job.json", "result.json", "error.json"


def write_job(job: TrainingJob) -> Path:
    """Write `job` into its run's folder and return that; an earlier outcome is removed.

    The tracker stays behind: the process that starts the others keeps it.
    """
    folder = job.run_dir / FOLDER
    for name in (_RESULT, _ERROR):
        (folder / name).unlink(missing_ok=True)
    for split in ("train", "validation"):
        lines = (row.model_dump_json() + "\n" for row in getattr(job, split))
        atomic_write(folder / f"{split}.jsonl", "".join(lines).encode())
    about = {
        "model": asdict(job.model) | {"path": str(job.model.path.resolve())},
        "prompt": job.prompt,
        "recipe": job.recipe.model_dump(mode="json"),
        "output": asdict(job.output),
        "start": str(job.start.resolve()) if job.start else None,
    }
    atomic_write(folder / _JOB, (json.dumps(about, indent=1) + "\n").encode())
    return job.run_dir


def read_job(run_dir: Path) -> TrainingJob:
    """Return the job that lies in `run_dir`. Raises EnvironmentProblem if there is none."""
    folder = run_dir / FOLDER
    try:
        about = json.loads((folder / _JOB).read_bytes())
        model = ModelSource(**about["model"] | {"path": Path(about["model"]["path"])})
        return TrainingJob(
            model=model,
            train=_rows(folder / "train.jsonl"),
            validation=_rows(folder / "validation.jsonl"),
            prompt=about["prompt"],
            recipe=Recipe.model_validate(about["recipe"]),
            run_dir=run_dir,
            output=OutputFormat(about["output"]["field"], tuple(about["output"]["labels"])),
            start=Path(about["start"]) if about["start"] else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(
            f"there is no training job that this version can read ({type(error).__name__})",
            where=str(run_dir),
            fix="Run `tutelage train --prepare` and give the folder that it prints",
        ) from error


def write_result(run_dir: Path, result: TrainResult) -> None:
    """Write what came out; paths are relative to the run's folder."""
    values = asdict(result) | {"adapter_dir": str(result.adapter_dir.relative_to(run_dir))}
    atomic_write(run_dir / FOLDER / _RESULT, (json.dumps(values) + "\n").encode())


def read_result(run_dir: Path) -> TrainResult | None:
    """Return what came out, or None if the run has not come to its end.

    Raises EnvironmentProblem if the file is damaged.
    """
    path = run_dir / FOLDER / _RESULT
    if not path.is_file():
        return None
    with _whole(path):
        values: dict[str, Any] = json.loads(path.read_bytes())
        values = {**values, "adapter_dir": run_dir / values["adapter_dir"]}
        return TypeAdapter(TrainResult).validate_python(values)


def write_error(run_dir: Path, error: TutelageError) -> None:
    """Write why a process gave up."""
    text = json.dumps(error.as_dict() | {"what": error.what})
    atomic_write(run_dir / FOLDER / _ERROR, (text + "\n").encode())


def raise_error(run_dir: Path) -> None:
    """Raise the error that a process wrote down, as it was; return if there is none."""
    path = run_dir / FOLDER / _ERROR
    if not path.is_file():
        return
    with _whole(path):
        found = json.loads(path.read_bytes())
        kind = getattr(errors, str(found["error"]), EnvironmentProblem)
        error = kind(found["what"], where=found["where"], fix=found["fix"])
    raise error


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say in a sentence that the file of an outcome is damaged."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentProblem(
            f"the outcome of the training is damaged ({type(error).__name__})",
            where=str(path),
            fix="Copy it again from where it was trained; or delete it and run the command again: "
            "training goes on from its newest checkpoint",
        ) from error


def _rows(path: Path) -> list[Example]:
    return [Example.model_validate_json(line) for line in path.read_bytes().splitlines()]
