"""The gateway's engine: the launcher that tutelage.yaml names, the client of it, its backends."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from tutelage.core import plugins
from tutelage.core.events import Event
from tutelage.serving.backends.backends import BackendMetrics, Backends
from tutelage.serving.backends.keep_alive import KeepAlive
from tutelage.serving.launchers.base import Engine
from tutelage.serving.launchers.remote import RemoteLauncher
from tutelage.serving.launchers.remote_server import RemoteServer
from tutelage.serving.monitoring.events import Happening
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.upstream import Upstream
from tutelage.workflows.context import Context
from tutelage.workflows.serving.keep_alive import kept_models


def make_launcher(ctx: Context) -> Any:
    """Return the launcher of `deploy.engine`; raise ConfigError if it is not known."""
    deploy = ctx.config.deploy
    kind = plugins.load("launchers", deploy.engine)
    if deploy.backends and deploy.engine == "embedded":
        text = "deploy names servers that nobody asks: its engine is embedded, and not remote"
        ctx.emit(Event("serve", "warning", text))
    if hasattr(kind, "from_project"):
        return kind.from_project(ctx.config, ctx.workspace)
    return kind(ctx.config.model, ctx.workspace, deploy.threads, backend=deploy.backend)


def make_upstream(ctx: Context, launcher: Any, engine: Engine) -> Upstream:
    """Return the client of the engine, or of the servers that a remote launcher looks after."""
    deploy = ctx.config.deploy
    waits: dict[str, Any] = {
        "timeout_s": deploy.timeout,
        "first_token_s": deploy.first_token_timeout,
        "idle_s": deploy.idle_timeout,
    }
    if isinstance(launcher, RemoteLauncher):
        return Upstream(Backends(launcher.holders), **waits)
    return Upstream(
        lambda: (getattr(launcher, "engine", None) or engine).base_url,
        **waits,
        api_key=getattr(launcher, "api_key", None),
        model_name=getattr(launcher, "name_of", str),
    )


def keep_alive(ctx: Context, state: GatewayState) -> KeepAlive:
    """Return the hook that calls hosted models so that they are not dropped as idle.

    A real request to a server's own model counts as a call.
    """
    launcher = state.host

    def answered(place: int) -> datetime | None:
        return launcher.servers[place].answered if isinstance(launcher, RemoteLauncher) else None

    return KeepAlive(partial(kept_models, ctx, answered), state.events)


def tell_of_backends(launcher: Any, state: GatewayState) -> None:
    """Show a remote launcher's servers in the metrics, and keep their failures as events."""
    if not isinstance(launcher, RemoteLauncher):
        return
    BackendMetrics(launcher.servers, state.telemetry.registry)

    def changed(server: RemoteServer, up: bool, text: str) -> None:
        state.events.tell(
            Happening("backend.up", text, subject=server.name)
            if up
            else Happening("backend.down", text, "error", subject=server.name)
        )

    launcher.on_change = changed
