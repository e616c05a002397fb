"""Keep each release in MLflow's model registry, with its hashes as tags and aliases that move.

The store is the truth; the registry is the view that MLflow's users know: a version leads to the
run that trained it, to the run that evaluated it with the report, and to the data of both
(release/mlflow_runs.py). mlflow is imported inside functions only: it costs seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import disk_errors

STABLE, CANDIDATE = "stable", "candidate"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_LOGGERS = ("mlflow", "alembic")


@dataclass(frozen=True)
class Version:
    """One release as the registry shows it. `run` is the id of the run it came from."""

    model: str
    source: Path
    tags: Mapping[str, str]
    description: str = ""
    run: str | None = None
    about: str = field(default="", repr=False)  # the model's own description


def installed() -> bool:
    """Return whether mlflow can be imported, without importing it."""
    return importlib.util.find_spec("mlflow") is not None


def register_version(uri: str, version: Version) -> str:
    """Return the registry version of a release: made once, found again by its `release` tag.

    `uri` is the registry's database; the source folder's content stays where it is.
    Raises EnvironmentProblem if mlflow is missing or its database can't be used.
    """
    with client(uri) as registry:
        found = _find(registry, version.model, version.tags["release"])
        if found is not None:
            return found
        _ensure_model(registry, version.model, version.about)
        made = registry.create_model_version(
            version.model,
            source=str(version.source),
            run_id=version.run,
            tags=dict(version.tags),
            description=version.description or None,
            await_creation_for=0,
        )
        return str(made.version)


def set_aliases(uri: str, model: str, wanted: Mapping[str, str]) -> None:
    """Make the model's aliases exactly those of `wanted`: alias to registry version.

    Aliases that people set under other names stay: only those ending in stable or candidate are
    taken away. Raises EnvironmentProblem if mlflow is missing or its database can't be used.
    """
    with client(uri) as registry:
        _ensure_model(registry, model)
        now = {
            name: str(version)
            for name, version in registry.get_registered_model(model).aliases.items()
        }
        for alias in now:
            if _ours(alias) and alias not in wanted:
                registry.delete_registered_model_alias(model, alias)
        for alias, version in wanted.items():
            if now.get(alias) != version:
                registry.set_registered_model_alias(model, alias, version)


def alias_of(deployment: str, project: str, role: str) -> str:
    """Return the alias of a deployment's release: the project's own deployment needs no prefix."""
    return role if deployment == project else f"{deployment}-{role}"


def describe_model(uri: str, model: str) -> dict[str, Any]:
    """Return the registry's view as plain data: aliases, and versions with their tags."""
    with client(uri) as registry:
        found = registry.get_registered_model(model)
        versions = registry.search_model_versions(f"name = '{model}'")
        return {
            "aliases": {name: str(version) for name, version in found.aliases.items()},
            "versions": {
                str(v.version): {
                    "tags": dict(v.tags),
                    "source": v.source,
                    "run": v.run_id or None,
                    "description": v.description or "",
                }
                for v in versions
            },
        }


@contextlib.contextmanager
def client(uri: str) -> Iterator[Any]:
    """Yield a client on `uri`, silent on the terminal, with its errors in plain words."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings(), disk_errors(Path(uri.removeprefix("sqlite:///"))):
        warnings.simplefilter("ignore")
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise EnvironmentProblem(
                f"MLflow can't be imported ({error.name or error})",
                fix="Run `pip install 'tutelage[train]'`",
            ) from error
        with _hushed():
            try:
                yield MlflowClient(tracking_uri=uri, registry_uri=uri)
            except MlflowException as error:
                raise EnvironmentProblem(
                    f"the MLflow registry can't be used ({str(error).splitlines()[0][:200]})",
                    where=uri,
                    fix="Check that file; releases themselves are safe in the store",
                ) from error


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep informational log lines of mlflow and alembic off the terminal."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _ensure_model(registry: Any, model: str, about: str = "") -> None:
    from mlflow.exceptions import MlflowException

    try:
        registry.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        with contextlib.suppress(MlflowException):  # somebody else made it just now
            registry.create_registered_model(model, description=about or None)
        registry.get_registered_model(model)


def _find(registry: Any, model: str, release: str) -> str | None:
    query = f"name = '{model}' and tags.release = '{release}'"
    found = registry.search_model_versions(query)
    return str(found[0].version) if found else None


def _ours(alias: str) -> bool:
    return alias.rpartition("-")[2] in (STABLE, CANDIDATE)
