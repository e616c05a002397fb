"""Azure OpenAI: its addresses and key header, and the deployment that a tuned model needs.

Files and jobs are OpenAI's under /openai with an api-version. A tuned model is called by the name
of a deployment, which is made over Azure's management API with a token of its own (`az account
get-access-token`). A deployment that nobody calls for 15 days is deleted; the model stays.
"""

from __future__ import annotations

import os
import time
from typing import Any
from urllib.parse import quote

from tutelage.core.config import Hosted, HostedDeployment
from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.training.hosted.base import Address, Pace, Shape
from tutelage.training.hosted.http import Client

_API_VERSION = "2024-10-21"
_READY = "succeeded"
_LOST = frozenset(("failed", "canceled", "deleting", "disabled"))


class AzureService:
    """Azure OpenAI, by its api-version or its /openai/v1 form."""

    shape: Shape = "hyperparameters"
    metadata = False

    def __init__(self, settings: Hosted, project: str) -> None:
        self._settings = settings
        self._project = project

    def address(self, path: str, model: str | None = None) -> Address:
        """Return where `path` is, with the key in `api-key`; a completion names its deployment."""
        settings = self._settings
        base = settings.base_url.rstrip("/")
        headers = {"api-key": _secret(settings.api_key_env)} if settings.api_key_env else {}
        if base.endswith("/v1"):
            return Address(f"{base}/{path}", headers)
        place = f"deployments/{quote(model, safe='')}/" if model else ""
        version = settings.api_version or _API_VERSION
        root = base.removesuffix("/openai")
        return Address(f"{root}/openai/{place}{path}?api-version={version}", headers)

    def publish(self, client: Client, model: str, pace: Pace) -> str:
        """Deploy the model, wait until it is ready, and return the deployment's name.

        Raises ConfigError without hosted.deployment, ModelError if Azure can't deploy it.
        """
        deployment = self._settings.deployment
        if deployment is None:
            raise ConfigError(
                f"Azure serves {model} only after it is deployed",
                fix="Fill in hosted.deployment (subscription, resource_group, account) and run "
                "`tutelage hosted fetch` again",
            )
        name = deployment.name or self._project
        address = _management(deployment, name)
        body = {
            "sku": {"name": deployment.sku, "capacity": deployment.capacity},
            "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
        }
        found = client.put(address, body)
        pause = pace.first_s
        while (state := _state(found)) != _READY:
            if state in _LOST:
                raise ModelError(
                    f"Azure could not deploy {model} ({state})",
                    where=name,
                    fix="Look at the deployment in Azure's portal, then run "
                    "`tutelage hosted fetch` again",
                )
            time.sleep(pause)
            pause = min(pace.longest_s, pause * 2)
            found = client.get(address)
        return name


def _management(deployment: HostedDeployment, name: str) -> Address:
    parts = (
        "subscriptions", deployment.subscription,
        "resourceGroups", deployment.resource_group,
        "providers/Microsoft.CognitiveServices/accounts", deployment.account,
        "deployments", name,
    )  # fmt: skip
    path = "/".join(quote(part) for part in parts)
    base = deployment.management_url.rstrip("/")
    return Address(
        f"{base}/{path}?api-version={deployment.api_version}",
        {"authorization": f"Bearer {_secret(deployment.bearer_env)}"},
    )


def _state(found: Any) -> str:
    properties = found.get("properties") if isinstance(found, dict) else None
    return str((properties or {}).get("provisioningState", "")).lower()


def _secret(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise EnvironmentProblem(
            f"the environment has no {variable}", fix=f"Run `export {variable}=...` first"
        )
    return value
