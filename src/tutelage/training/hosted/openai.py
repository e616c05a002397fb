"""OpenAI's own service, and servers that speak its jobs API: a tuned model is callable at once."""

from __future__ import annotations

from tutelage.core.config import Hosted
from tutelage.inference.openai_http import authorization, endpoint_url
from tutelage.training.hosted.base import Address, Pace, Shape
from tutelage.training.hosted.http import Client


class OpenAIService:
    """OpenAI, and every server with its jobs API under /v1."""

    shape: Shape = "method"
    metadata = True

    def __init__(self, settings: Hosted, project: str) -> None:
        del project
        self._settings = settings

    def address(self, path: str, model: str | None = None) -> Address:
        """Return BASE/v1/PATH with the key as bearer."""
        del model
        settings = self._settings
        return Address(endpoint_url(settings.base_url, path), authorization(settings.api_key_env))

    def publish(self, client: Client, model: str, pace: Pace) -> str:
        """Return the model's own name: there is nothing to do."""
        del client, pace
        return model
