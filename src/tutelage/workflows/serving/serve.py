"""`tutelage up`: the engine, the gateway and the rollout controller, until told to stop.

Everything that must survive is in the store; killed at any moment, the next start goes on from the
last step. On a stop the gateway drains: running requests end, the log is flushed, then it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.events import Event
from tutelage.data.split import load_split_key
from tutelage.feedback.ab.ab_routes import ab_routes
from tutelage.feedback.dashboard.dashboard_routes import dashboard_routes
from tutelage.feedback.intake import routes as feedback_routes
from tutelage.feedback.live.routes import live_routes
from tutelage.release.deployments import deployments, ensure_deployment
from tutelage.serving.access.key_store import load_keys
from tutelage.serving.access.keys import KeyRing
from tutelage.serving.app import create_app
from tutelage.serving.backends.backend_admin import backend_routes
from tutelage.serving.backends.slots import Slots
from tutelage.serving.controller import Controller
from tutelage.serving.guard_admin import guard_routes
from tutelage.serving.monitoring.monitor_routes import monitor_routes
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.records.request_log import Redactor, RequestLog, keep
from tutelage.serving.router import Router
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.http_protocol import protocol
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.drift_routes import drift_routes
from tutelage.workflows.feedback.privacy_routes import privacy_routes
from tutelage.workflows.release.registry_child import RegistryChild
from tutelage.workflows.serving.guards import surroundings
from tutelage.workflows.serving.serve_engine import make_launcher, make_upstream, tell_of_backends
from tutelage.workflows.serving.serve_hooks import hooks
from tutelage.workflows.serving.serve_monitor import log_lines, open_events
from tutelage.workflows.serving.serve_note import noted

_DRAIN_S = 20
_LAST_S = 2.0  # for requests to end that are broken off
_SEND_BUFFER = 65_536  # bytes: what a slow reader's connection holds of the system's memory
_KEEP_ALIVE_S = 75  # longer than clients and proxies keep an idle connection
_LOOPBACK = ("127.", "::1", "localhost")
OnReady = Callable[[str], None]
Beside = contextlib.AbstractAsyncContextManager[object]


async def serve(
    ctx: Context,
    *,
    host: str | None = None,
    port: int | None = None,
    on_ready: OnReady | None = None,
    stop: asyncio.Event | None = None,
    beside: Beside | None = None,
) -> None:
    """Serve the project's deployment until `stop` is set or SIGINT, SIGTERM or SIGHUP arrives.

    `on_ready(url)` is called when requests are taken. Port 0 takes a free one. `beside` is entered
    before the gateway and left after it (the web page).
    Raises EnvironmentProblem if the port is in use or a public address has no API key.
    """
    deploy = ctx.config.deploy
    host = host or deploy.host
    stop = stop or asyncio.Event()
    with _listener(host, deploy.port if port is None else port) as listener:
        _require_keys(ctx, host)
        await asyncio.to_thread(_ensure_deployment, ctx)
        async with beside or contextlib.nullcontext(), _gateway(ctx, host) as state:
            url = _url(host, listener)
            routes = [
                *ab_routes(),
                *dashboard_routes(),
                *drift_routes(ctx),
                *privacy_routes(ctx),
                *feedback_routes(state),
                *monitor_routes(),
                *backend_routes(),
                *guard_routes(),
                *live_routes(),
            ]
            server = _Server(
                uvicorn.Config(
                    create_app(state, routes),
                    http=protocol(),
                    ws="none",
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    server_header=False,
                    timeout_keep_alive=_KEEP_ALIVE_S,
                    timeout_graceful_shutdown=_DRAIN_S,
                )
            )
            await _until_stopped(ctx, server, listener, url, stop, on_ready, state)


def run_serve(
    ctx: Context,
    *,
    host: str | None = None,
    port: int | None = None,
    on_ready: OnReady | None = None,
    beside: Beside | None = None,
) -> None:
    """Run `serve` on the fastest event loop this machine has."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(ctx, host=host, port=port, on_ready=on_ready, beside=beside))


class Serving:
    """A gateway in a thread of its own: `with Serving(ctx) as serving: serving.base_url`."""

    def __init__(self, ctx: Context, *, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._ctx, self._host, self._port = ctx, host, port
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._settled = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.base_url = ""

    def __enter__(self) -> Serving:
        """Start and return when requests are taken; raise what kept it from starting."""
        self._thread.start()
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Drain and stop; return when all is flushed. Raises what went wrong meanwhile."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as error:  # handed to the caller's thread
            self._error = error
        finally:
            self._settled.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(url: str) -> None:
            self.base_url = url
            self._settled.set()

        await serve(self._ctx, host=self._host, port=self._port, on_ready=ready, stop=self._stop)


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the log is flushed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_stopped(
    ctx: Context,
    server: _Server,
    listener: socket.socket,
    url: str,
    stop: asyncio.Event,
    on_ready: OnReady | None,
    state: GatewayState,
) -> None:
    running = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    with _signals(stop, server), contextlib.ExitStack() as ends:
        try:
            while not server.started and not running.done():
                await asyncio.sleep(0.005)
            if server.started:
                ends.enter_context(noted(ctx.workspace.home, url))
                if on_ready is not None:
                    on_ready(url)
                await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            state.draining = True
            server.should_exit = True
            stopping.cancel()
            await running
            await _end(server.server_state.tasks)


async def _end(requests: set[asyncio.Task[None]]) -> None:
    """End the requests that nobody waited for: each tells its client, and keeps its record."""
    for request in list(requests):
        request.cancel()
    if requests:
        await asyncio.wait(requests, timeout=_LAST_S)


@asynccontextmanager
async def _gateway(ctx: Context, host: str) -> AsyncIterator[GatewayState]:
    """Start engine, log, client and controller; stop them in the opposite order."""
    deploy = ctx.config.deploy
    launcher = make_launcher(ctx)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(log_lines(ctx))
        stack.push_async_callback(launcher.stop)
        engine = await launcher.start()
        telemetry = Telemetry()
        events = open_events(ctx, telemetry)
        stack.push_async_callback(asyncio.to_thread, events.close)
        log = RequestLog(ctx.store, telemetry, ahead=ctx.workspace.logs / "ahead")
        log.start()
        stack.push_async_callback(asyncio.to_thread, log.close)
        upstream = make_upstream(ctx, launcher, engine)
        await upstream.start()
        stack.push_async_callback(upstream.close)
        state = GatewayState(
            project=ctx.config,
            store=ctx.store,
            router=Router(),
            log=log,
            upstream=upstream,
            telemetry=telemetry,
            keys=KeyRing(required=not _is_loopback(host)),
            slots=Slots(deploy.concurrency, deploy.queue, telemetry, wait_s=deploy.timeout),
            split_key=load_split_key(ctx.workspace),
            redactor=_redactor(ctx),
            events=events,
            host=launcher,
            around=surroundings(ctx),
        )
        tell_of_backends(launcher, state)
        state.hooks = hooks(ctx, state)
        for hook in state.hooks:
            await hook.start()
            stack.push_async_callback(hook.close)
        controller = Controller(
            state,
            launcher,
            ctx.workspace,
            tell=lambda text: ctx.emit(Event("rollout", "note", text)),
            moved=RegistryChild(ctx).wanted,
        )
        state.refresh = controller.sync
        await controller.sync(first=True)
        state.ready = True
        stack.push_async_callback(_cancel, asyncio.create_task(controller.run()))
        yield state


def _redactor(ctx: Context) -> Redactor:
    if not ctx.config.deploy.redact:
        return keep
    from tutelage.workflows.data.privacy import log_redactor

    return log_redactor(ctx)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _ensure_deployment(ctx: Context) -> None:
    """Make the project's deployment, with the base release as stable, if there is none."""
    if any(row.name == ctx.config.name for row in deployments(ctx.store)):
        return
    from tutelage.workflows.release.release import base_release

    release = base_release(ctx).artifact.hash
    ensure_deployment(ctx.store, ctx.config.name, release)


@contextlib.contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a bound socket; raise EnvironmentProblem if the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise EnvironmentProblem(
                f"the port {port} on {host} can't be used ({_reason(error)})",
                fix="Stop what uses it, or choose another: `tutelage up --port 0` picks a free one",
            ) from error
        yield listener
    finally:
        listener.close()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _is_loopback(host: str) -> bool:
    return host.startswith(_LOOPBACK)


def _require_keys(ctx: Context, host: str) -> None:
    if not _is_loopback(host) and not load_keys(ctx.store):
        raise EnvironmentProblem(
            f"there is no API key, and {host} can be reached from other machines",
            fix="Make one first: `tutelage keys create NAME`",
        )


@contextlib.contextmanager
def _signals(stop: asyncio.Event, server: _Server) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP stop the gateway; a second one doesn't wait for requests."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def told() -> None:
        server.force_exit = stop.is_set()
        stop.set()

    handled = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # a terminal was closed; not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # as nohup sets it
        numbers.append(hang_up)
    for number in numbers:
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises as ever
            loop.add_signal_handler(number, told)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
