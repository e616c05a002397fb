"""Keep each release in MLflow's model registry, with its hashes as tags and aliases that move.

The store is the truth; the registry is the view that MLflow's users know. This is the only file
of the package's serving half that imports mlflow, and only inside functions: it costs seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
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


def installed() -> bool:
    """Return whether mlflow can be imported, without importing it."""
    return importlib.util.find_spec("mlflow") is not None


def register_version(
    uri: str, model: str, source: Path, tags: Mapping[str, str], *, alias: str | None = None
) -> str:
    """Return the registry version of a release: made once, found again by its `release` tag.

    `uri` is the registry's database, `model` the project, `source` the release's folder, whose
    content stays where it is. `alias` is set on the version.
    Raises EnvironmentProblem if mlflow is missing or its database can't be used.
    """
    with _client(uri) as client:
        version = _find(client, model, tags["release"])
        if version is None:
            _ensure_model(client, model)
            made = client.create_model_version(
                model, source=str(source), tags=dict(tags), await_creation_for=0
            )
            version = str(made.version)
        if alias:
            client.set_registered_model_alias(model, alias, version)
        return version


def move_aliases(uri: str, model: str, stable: str | None, candidate: str | None) -> None:
    """Point the aliases at registry versions; None takes an alias away.

    Raises EnvironmentProblem if mlflow is missing or its database can't be used.
    """
    with _client(uri) as client:
        _ensure_model(client, model)
        for alias, version in ((STABLE, stable), (CANDIDATE, candidate)):
            if version is None:
                client.delete_registered_model_alias(model, alias)
            else:
                client.set_registered_model_alias(model, alias, version)


def describe_model(uri: str, model: str) -> dict[str, Any]:
    """Return the registry's view as plain data: aliases, and versions with their tags."""
    with _client(uri) as client:
        found = client.get_registered_model(model)
        versions = client.search_model_versions(f"name = '{model}'")
        return {
            "aliases": {name: str(version) for name, version in found.aliases.items()},
            "versions": {
                str(v.version): {"tags": dict(v.tags), "source": v.source} for v in versions
            },
        }


@contextlib.contextmanager
def _client(uri: str) -> Iterator[Any]:
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


def _ensure_model(client: Any, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        with contextlib.suppress(MlflowException):  # somebody else made it just now
            client.create_registered_model(model)
        client.get_registered_model(model)


def _find(client: Any, model: str, release: str) -> str | None:
    query = f"name = '{model}' and tags.release = '{release}'"
    found = client.search_model_versions(query)
    return str(found[0].version) if found else None
