"""A fine-tuning service with OpenAI's and Azure's protocol: files, jobs, events, deployments.

It runs in a thread (`JobsServer`). Time does not pass by itself: a file is read, and a job goes on
by one state or step, each time somebody looks; days pass when a test says so. What a fault loses,
delays or refuses is said by `Fault`, and `hook` sees every request before and after it is done.
"""

from __future__ import annotations

import base64
import email
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.fakes.openai_backend import _HangUp, _with_hang_up

KEY = "sk-test"
TOKEN = "management-token"
DAY = 86_400
IDLE_DAYS = 15  # a deployment that nobody called for so long is deleted
_WAITING = ("validating_files", "queued")
_CREATE = {"model", "training_file", "validation_file", "seed", "suffix"}
_HYPER = {"n_epochs", "batch_size", "learning_rate_multiplier"}
Json = dict[str, Any]


class Refused(Exception):
    """An answer in the form of the API's errors."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ) -> None:
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD path" holds `on`.

    `after`: the request is carried out and its answer is lost. `status` 0: the connection breaks.
    """

    on: str
    status: int = 0
    times: int = 1
    after: bool = False
    code: str | None = None


@dataclass
class Service:
    """All that the service knows, and how it behaves."""

    azure: bool = False
    reads: int = 1  # looks at a file before it is processed
    steps: int = 3  # looks at a running job before it ends
    fails: str | None = None  # every job ends as failed, with this message
    without_metadata: bool = False  # jobs keep none
    completion_tokens_only: bool = False  # `max_tokens` is refused
    text: Callable[[Json], str] = lambda body: "pong"
    clock: int = 1_800_000_000
    files: dict[str, Json] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    bodies: list[Json] = field(default_factory=list)  # that jobs were made with
    events: dict[str, list[Json]] = field(default_factory=dict)
    progress: dict[str, int] = field(default_factory=dict)  # looks at a job
    models: set[str] = field(default_factory=set)  # tuned ones
    deployments: dict[str, Json] = field(default_factory=dict)  # by name
    called: dict[str, int] = field(default_factory=dict)  # clock of the last call
    asked: list[Json] = field(default_factory=list)  # bodies of completions
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # "METHOD path" of every request
    hook: Callable[[int, str, str], None] = lambda number, phase, request: None

    def pass_days(self, days: float) -> None:
        """Let days pass; deployments that were idle too long are deleted."""
        self.clock += int(days * DAY)
        for name in list(self.deployments):
            if self.clock - self.called[name] > IDLE_DAYS * DAY:
                del self.deployments[name]

    def forget(self, model: str) -> None:
        """Delete a tuned model."""
        self.models.discard(model)

    def uploads(self) -> list[str]:
        """The names of the files that were uploaded, in order."""
        return [f["filename"] for f in self.files.values() if f["purpose"] == "fine-tune"]


def _files(service: Service, method: str, parts: list[str], request: Json) -> Any:
    if method == "POST" and not parts:
        return _upload(service, request)
    if method == "GET" and not parts:
        wanted = request["query"].get("purpose")
        found = [f for f in service.files.values() if wanted in (None, f["purpose"])]
        return _page(found[::-1], request["query"], whole=service.azure)
    file = service.files.get(parts[0])
    if file is None:
        raise Refused(404, f"No such File object: {parts[0]}", param="id")
    if parts[1:] == ["content"]:
        return service.contents[file["id"]]
    if method == "DELETE":
        del service.files[file["id"]]
        return {"id": file["id"], "object": "file", "deleted": True}
    waiting = "pending" if service.azure else "uploaded"
    file["_looks"] += 1
    if file["status"] == waiting and file["_looks"] >= service.reads:
        file["status"] = "processed"
    return file


def _upload(service: Service, request: Json) -> Json:
    parts = _multipart(request["headers"]["content-type"], request["body"])
    purpose = parts.get("purpose", (None, b""))[1].decode()
    name, data = parts.get("file", (None, b""))
    if purpose not in ("fine-tune", "batch", "assistants") or name is None:
        raise Refused(400, "'purpose' or 'file' is a required property")
    if purpose == "fine-tune" and not name.endswith(".jsonl"):
        raise Refused(400, "Invalid file format. Expected one of ['jsonl']", param="file")
    return _keep(service, name, purpose, data, "pending" if service.azure else "uploaded")


def _keep(service: Service, name: str, purpose: str, data: bytes, status: str) -> Json:
    file_id = f"file-{len(service.files) + 1:04d}"
    service.files[file_id] = {
        "id": file_id, "object": "file", "bytes": len(data), "created_at": service.clock,
        "filename": name, "purpose": purpose, "status": status, "status_details": None,
        "_looks": 0,
    }  # fmt: skip
    service.contents[file_id] = data
    return service.files[file_id]


def _jobs(service: Service, method: str, parts: list[str], request: Json) -> Any:
    if method == "POST" and not parts:
        return _create(service, json.loads(request["body"]))
    if method == "GET" and not parts:
        return _page(list(service.jobs.values())[::-1], request["query"])
    job = service.jobs.get(parts[0])
    if job is None:
        raise Refused(404, f"Could not find fine tune: {parts[0]}", "fine_tune_not_found", "id")
    if parts[1:] == ["events"]:
        return _page(service.events[job["id"]][::-1], request["query"])
    if parts[1:] == ["checkpoints"]:
        return _page(_checkpoints(service, job)[::-1], request["query"])
    if method == "POST" and parts[1:] == ["cancel"]:
        if job["status"] in ("succeeded", "failed", "cancelled"):
            raise Refused(400, f"Job has already completed: {job['id']}", param="id")
        job.update(status="cancelled", finished_at=service.clock, estimated_finish=None)
        _tell(service, job, "The job was cancelled")
        return job
    _go_on(service, job)
    return job


def _create(service: Service, body: Json) -> Json:
    service.bodies.append(body)
    extra = {"hyperparameters"} if service.azure else {"hyperparameters", "method", "metadata"}
    for name in body:
        if name not in _CREATE | extra:
            raise Refused(400, f"Unrecognized request argument supplied: {name}", param=name)
    if "hyperparameters" in body and "method" in body:
        raise Refused(400, "hyperparameters and method can't be used together", param="method")
    hyper = _hyper(body)
    for split in ("training_file", "validation_file"):
        file = service.files.get(body.get(split, ""))
        if split in body and (file is None or file["purpose"] != "fine-tune"):
            raise Refused(400, f"invalid {split}: {body[split]}", "invalid_value", split)
        if file is not None and file["status"] != "processed":
            raise Refused(400, f"File '{file['id']}' is still being processed", param=split)
    if len(body.get("suffix") or "") > 64:
        raise Refused(400, "suffix is too long", param="suffix")
    job_id = f"ftjob-{len(service.jobs) + 1:04d}"
    job = service.jobs[job_id] = {
        "id": job_id, "object": "fine_tuning.job", "created_at": service.clock, "error": None,
        "fine_tuned_model": None, "finished_at": None, "model": body["model"],
        "hyperparameters": {name: hyper.get(name, "auto") for name in sorted(_HYPER)},
        "organization_id": "org-test", "result_files": [], "seed": body.get("seed", 1),
        "status": "pending" if service.azure else _WAITING[0], "trained_tokens": None,
        "training_file": body["training_file"], "estimated_finish": None, "integrations": [],
        "validation_file": body.get("validation_file"), "_suffix": body.get("suffix"),
    }  # fmt: skip
    if not service.azure:
        job["metadata"] = None if service.without_metadata else body.get("metadata")
        job["method"] = {"type": "supervised", "supervised": {"hyperparameters": hyper}}
    service.events[job_id], service.progress[job_id] = [], 0
    _tell(service, job, f"Created fine-tuning job: {job_id}")
    return job


def _hyper(body: Json) -> Json:
    method = body.get("method") or {"type": "supervised"}
    if method.get("type") != "supervised":
        raise Refused(400, "only supervised", param="method")
    inner = method.get("supervised", {}).get("hyperparameters", {})
    found: Json = body.get("hyperparameters", inner)
    for name, value in found.items():
        whole = name != "learning_rate_multiplier"
        right = value == "auto" or isinstance(value, int if whole else (int, float))
        if name not in _HYPER or not right:
            raise Refused(400, f"invalid hyperparameter {name}={value!r}", param=name)
    return found


def _go_on(service: Service, job: Json) -> None:
    """Move a job by one state or step."""
    if job["status"] in ("succeeded", "failed", "cancelled"):
        return
    looks = service.progress[job["id"]] = service.progress[job["id"]] + 1
    if looks == 1:
        problem = service.fails or _problem(service, job)
        if problem:
            job["error"] = {"code": "invalid_training_file", "message": problem, "param": None}
            job.update(status="failed", finished_at=service.clock)
            _tell(service, job, problem, level="error")
            return
        job["status"] = "pending" if service.azure else _WAITING[1]
        _tell(service, job, "Files validated, moving job to queued state")
    elif looks == 2:
        job.update(status="running", estimated_finish=service.clock + 600)
        _tell(service, job, "Fine-tuning job started")
    elif looks - 2 <= service.steps:
        _step(service, job, looks - 2)
    else:
        _succeed(service, job)


def _step(service: Service, job: Json, step: int) -> None:
    loss = 2.0 / (step + 1)
    data = {"step": step, "total_steps": service.steps, "train_loss": loss,
            "train_mean_token_accuracy": 1 - loss / 4}  # fmt: skip
    if job["validation_file"]:
        data["valid_loss"] = loss + 0.1
    message = f"Step {step}/{service.steps}: training loss={loss:.2f}"
    _tell(service, job, message, data=data)


def _succeed(service: Service, job: Json) -> None:
    end = job["_suffix"] or ""
    job["fine_tuned_model"] = (
        f"{job['model']}.ft-{job['id']}-{end}" if service.azure
        else f"ft:{job['model']}:org:{end}:{job['id'][-4:]}"
    )  # fmt: skip
    service.models.add(job["fine_tuned_model"])
    lines = ["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"]
    for step in range(1, service.steps + 1):
        last = f"{2.0 / (step + 1) + 0.1:.4f},0.9" if job["validation_file"] else ","
        lines.append(f"{step},{2.0 / (step + 1):.4f},0.8,{last}")
    table = ("\n".join(lines) + "\n").encode()
    content = table if service.azure else base64.b64encode(table)
    file = _keep(service, "step_metrics.csv", "fine-tune-results", content, "processed")
    job.update(
        status="succeeded", finished_at=service.clock, result_files=[file["id"]],
        trained_tokens=len(service.contents[job["training_file"]]), estimated_finish=None,
    )  # fmt: skip
    _tell(service, job, "The job has successfully completed")


def _problem(service: Service, job: Json) -> str | None:
    """Return what is wrong with a job's files, as the service would say it."""
    for split in ("training_file", "validation_file"):
        if job[split] is None:
            continue
        lines = service.contents[job[split]].decode().splitlines()
        if split == "training_file" and len(lines) < 10:
            return f"Training file has {len(lines)} example(s), but must have at least 10 examples"
        for number, line in enumerate(lines, start=1):
            turns = json.loads(line)["messages"]
            weights = [t["weight"] for t in turns if "weight" in t]
            known = all(set(t) <= {"role", "content", "weight", "name"} for t in turns)
            if turns[-1]["role"] != "assistant" or not known or not set(weights) <= {0, 1}:
                return f"Invalid file format. Line {number}"
    return None


def _tell(
    service: Service, job: Json, message: str, *, level: str = "info", data: Json | None = None
) -> None:
    events = service.events[job["id"]]
    events.append(
        {
            "id": f"ftevent-{job['id']}-{len(events) + 1:04d}", "object": "fine_tuning.job.event",
            "created_at": service.clock, "level": level, "message": message,
            "type": "metrics" if data else "message", "data": data or {},
        }
    )  # fmt: skip


def _checkpoints(service: Service, job: Json) -> list[Json]:
    if job["status"] != "succeeded":
        return []
    return [
        {
            "id": f"ftckpt-{job['id']}-{step}", "object": "fine_tuning.job.checkpoint",
            "created_at": service.clock, "fine_tuning_job_id": job["id"], "step_number": step,
            "fine_tuned_model_checkpoint": f"{job['fine_tuned_model']}:ckpt-step-{step}",
            "metrics": {"step": step, "train_loss": 2.0 / (step + 1)},
        }
        for step in range(1, service.steps + 1)
    ]  # fmt: skip


def _chat(service: Service, request: Json, deployment: str | None) -> Json:
    body = json.loads(request["body"])
    model = deployment or body["model"]
    if model not in (service.deployments if service.azure else service.models):
        code = "DeploymentNotFound" if service.azure else "model_not_found"
        raise Refused(404, f"The model `{model}` does not exist", code, "model")
    if service.completion_tokens_only and "max_tokens" in body:
        text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        raise Refused(400, text, "unsupported_parameter", "max_tokens")
    service.called[model] = service.clock
    service.asked.append(body)
    message = {"role": "assistant", "content": service.text(body)}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": service.clock,
        "model": model, "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }  # fmt: skip


def _management(service: Service, method: str, name: str, request: Json) -> Json:
    if request["headers"].get("authorization") != f"Bearer {TOKEN}":
        raise Refused(401, "Authentication failed.", "AuthenticationFailed")
    if method == "PUT":
        body = json.loads(request["body"])
        if body["properties"]["model"]["name"] not in service.models:
            raise Refused(400, "The specified model does not exist", "DeploymentModelNotFound")
        if name not in service.deployments:
            body["properties"]["provisioningState"] = "Creating"
            service.deployments[name] = {"name": name, **body}
            service.called[name] = service.clock
        return service.deployments[name]
    if name not in service.deployments:
        raise Refused(404, f"The Resource '{name}' was not found.", "ResourceNotFound")
    service.deployments[name]["properties"]["provisioningState"] = "Succeeded"
    return service.deployments[name]


def _route(service: Service, method: str, path: str, request: Json) -> Any:
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "subscriptions":
        return _management(service, method, parts[-1], request)
    headers, root = request["headers"], parts.pop(0)
    if service.azure:
        allowed = headers.get("api-key") == KEY and "api-version" in request["query"]
    else:
        allowed = headers.get("authorization") == f"Bearer {KEY}"
    if root != ("openai" if service.azure else "v1") or not parts:
        raise Refused(404, f"Invalid URL ({method} /{path})")
    if not allowed:
        raise Refused(401, "Incorrect API key provided", "invalid_api_key")
    if parts[0] == "files":
        return _files(service, method, parts[1:], request)
    if parts[:2] == ["fine_tuning", "jobs"]:
        return _jobs(service, method, parts[2:], request)
    if parts[-2:] == ["chat", "completions"]:
        return _chat(service, request, parts[1] if parts[0] == "deployments" else None)
    if parts[0] == "models" and not parts[1:]:
        return _page([_model(service, name) for name in sorted(service.models)], {})
    if parts[0] == "models" and parts[1] in service.models:
        return _model(service, parts[1])
    raise Refused(404, f"The model '{parts[-1]}' does not exist", "model_not_found")


def _model(service: Service, name: str) -> Json:
    return {"id": name, "object": "model", "created": service.clock, "owned_by": "org-test"}


def _page(entries: list[Json], query: Json, *, whole: bool = False) -> Json:
    """Return one page of a list; `whole` lists come without a mark that there is more."""
    if whole:
        return {"object": "list", "data": entries}
    ids = [entry["id"] for entry in entries]
    start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    limit = int(query.get("limit", 20))
    shown = entries[start : start + limit]
    return {"object": "list", "data": shown, "has_more": start + limit < len(entries)}


def _multipart(content_type: str, body: bytes) -> dict[str, tuple[str | None, bytes]]:
    if not content_type.startswith("multipart/form-data"):
        raise Refused(400, "expected multipart/form-data")
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    found = {}
    for part in message.get_payload():  # type: ignore[union-attr]
        name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
        found[str(name)] = (part.get_filename(), part.get_payload(decode=True))  # type: ignore
    return found  # type: ignore[return-value]


def make_app(service: Service) -> Any:
    """Return the service's application."""

    async def serve(request: Request) -> Response:
        path = request.url.path
        given = {
            "body": await request.body(),
            "headers": dict(request.headers),
            "query": dict(request.query_params),
        }
        line = f"{request.method} {path}"
        service.seen.append(line)
        number = len(service.seen)
        service.hook(number, "before", line)
        fault = next((f for f in service.faults if f.times > 0 and f.on in line), None)
        if fault is not None:
            fault.times -= 1
        if fault is None or fault.after:
            response = _answer(service, request.method, path, given)
            service.hook(number, "after", line)
        if fault is None:
            return response
        if not fault.status:
            return _HangUp()
        refused = Refused(fault.status, "a fault", fault.code)
        return JSONResponse(refused.body, fault.status, headers={"retry-after": "0"})

    methods = ["GET", "POST", "PUT", "DELETE"]
    return _with_hang_up(Starlette(routes=[Route("/{path:path}", serve, methods=methods)]))


def _answer(service: Service, method: str, path: str, given: Json) -> Response:
    try:
        found = _route(service, method, path, given)
    except Refused as error:
        return JSONResponse(error.body, error.status)
    if isinstance(found, bytes):
        return Response(found, media_type="application/octet-stream")
    return JSONResponse(_public(found))


def _public(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _public(value) for key, value in found.items() if key[:1] != "_"}
    return [_public(item) for item in found] if isinstance(found, list) else found


class JobsServer:
    """The service in a thread. `url` has neither /v1 nor /openai."""

    def __init__(self, service: Service | None = None) -> None:
        self.service = service or Service()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            make_app(self.service), log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def fresh(self, **behaviour: Any) -> JobsServer:
        """Forget everything and behave as said from now on."""
        self.service.__init__(**behaviour)  # type: ignore[misc]
        return self

    def __enter__(self) -> JobsServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
