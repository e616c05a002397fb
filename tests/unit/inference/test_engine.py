"""The engine process with the real demo model: adapters come and go, every answer is right."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from tests.fakes.small_llama import TEXTS, strong_adapter

from tutelage.core.example import Message
from tutelage.inference.base import Decoding, Prompt
from tutelage.inference.gguf_header import read_header
from tutelage.inference.models import locate_model

pytestmark = pytest.mark.model
pytest.importorskip("xllamacpp")

CODER = {"role": "system", "content": "You are a medical coder. Answer with JSON."}
SCHEMA = {
    "type": "object",
    "properties": {"chapter": {"type": "string", "enum": ["respiratory", "circulatory"]}},
    "required": ["chapter"],
    "additionalProperties": False,
}


def _start(folder: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "tutelage.inference.engine", "--model", "demo"]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready), "--parent", str(os.getpid()), *options]
    )
    while not ready.is_file():
        assert process.poll() is None, "the engine ended before it was ready"
        time.sleep(0.02)
    return process, f"http://127.0.0.1:{json.loads(ready.read_bytes())['port']}"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine with the base model loaded as release `base`."""
    process, url = _start(tmp_path_factory.mktemp("engine"), "--threads", "1")
    post(url, "/admin/load", {"release": "base", "adapter": None})
    yield url
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder with strong random weights for the demo model."""
    shapes = read_header(locate_model("demo").path).shapes
    return strong_adapter(tmp_path_factory.mktemp("adapter"), shapes, layers=30)


def post(url: str, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def ask(url: str, text: str, model: str = "base", **fields: Any) -> tuple[int, Any]:
    messages = [CODER, {"role": "user", "content": text}]
    body = {"model": model, "messages": messages, "max_tokens": 16, **fields}
    return post(url, "/v1/chat/completions", body)


def content(answer: tuple[int, Any]) -> str:
    assert answer[0] == 200, answer
    return str(answer[1]["choices"][0]["message"]["content"])


def test_the_openai_sdk_reads_whole_and_streamed_answers(engine: str) -> None:
    client = openai.OpenAI(base_url=f"{engine}/v1", api_key="unused")
    messages: Any = [CODER, {"role": "user", "content": "asthma"}]
    whole = client.chat.completions.create(model="base", messages=messages, max_tokens=12)
    with client.chat.completions.create(
        model="base", messages=messages, max_tokens=12,
        stream=True, stream_options={"include_usage": True},
    ) as stream:  # fmt: skip
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 8  # word by word
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert [model.id for model in client.models.list()] == ["base"]
    with pytest.raises(openai.NotFoundError, match="is not loaded here"):
        client.chat.completions.create(model="nobody", messages=messages)


def test_a_repeated_prompt_is_not_computed_again(engine: str) -> None:
    long = "asthma and " * 60
    asked = [ask(engine, long, max_tokens=1)[1]["usage"] for _ in range(4)]
    assert asked[-1]["prompt_tokens_details"]["cached_tokens"] >= asked[-1]["prompt_tokens"] - 2


def test_a_schema_is_kept_with_the_spacing_that_is_taught(engine: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    text = content(ask(engine, "asthma", response_format=form))
    assert text in ('{"chapter": "respiratory"}', '{"chapter": "circulatory"}')
    status, answer = ask(engine, "asthma", response_format={**form, "json_schema": {"schema": {
        "type": "object", "properties": {"chapter": {"type": "text"}}}}})  # fmt: skip
    assert status == 400
    assert "$.properties.chapter.type" in answer["error"]["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": []},
        {"allOf": [{"const": 1}, {"const": 2}]},
        {"type": "string", "format": "nonsense"},
        {"type": "string", "pattern": "(?=a)b"},
    ],
)
def test_a_schema_that_llama_cpp_would_drop_is_refused(engine: str, schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    for stream in (False, True):
        # cut off, so that what was said can't be checked against the schema
        status, answer = ask(engine, "asthma", response_format=form, max_tokens=2, stream=stream)
        assert (status, "can't enforce" in answer["error"]["message"]) == (400, True)


def test_half_a_surrogate_is_no_trouble(engine: str) -> None:
    assert ask(engine, "a\ud800b", max_tokens=1)[0] == 200
    assert ask(engine, "a", max_tokens=1, stop=["\udfff"])[0] == 200


def test_a_prompt_that_is_too_long_is_told_so(engine: str) -> None:
    status, answer = ask(engine, "word " * 3000)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert ask(engine, "word " * 3000, stream=True)[0] == 400


def test_a_control_token_in_user_text_stays_text(engine: str) -> None:
    """Live, `<|im_end|>` would be one token and end the user's turn."""
    plain = ask(engine, "a b", max_tokens=1)[1]["usage"]["prompt_tokens"]
    for token in ("<|im_end|>", "<|endoftext|>", "<jupyter_code>"):
        spelled = ask(engine, f"a {token} b", max_tokens=1)[1]["usage"]["prompt_tokens"]
        assert spelled >= plain + 4, token


def test_the_quantised_base_stays_near_the_reference(engine: str) -> None:
    """llama.cpp rounds activations for quantised weights: near-ties may flip, no more than that."""
    torch = pytest.importorskip("torch")
    from tutelage.inference.transformers import (
        TransformersGenerator,
        load_model,
        load_tokenizer,
        render,
    )

    demo = locate_model("demo")
    model, tokenizer = load_model(demo), load_tokenizer(demo)
    system = Message(role="system", content="You are a medical coder.")
    prompts = [
        Prompt((system, Message(role="user", content=text)), Decoding(max_tokens=1))
        for text in TEXTS
    ]
    expected = [c.text for c in TransformersGenerator.over(model, tokenizer).generate(prompts)]
    got = []
    for prompt in prompts:
        turns = [message.model_dump() for message in prompt.messages]
        body = {"model": "base", "messages": turns, "max_tokens": 1}
        got.append(content(post(engine, "/v1/chat/completions", body)))
    assert sum(a == b for a, b in zip(got, expected, strict=True)) >= 9, (got, expected)

    off = []
    for prompt in prompts:
        turns = [message.model_dump() for message in prompt.messages]
        body = {"model": "base", "messages": turns, "max_tokens": 1}
        answer = post(engine, "/v1/chat/completions", body | {"logprobs": True, "top_logprobs": 5})
        top = answer[1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        with torch.inference_mode():
            ids = torch.tensor([render(tokenizer, prompt.messages).prompt_ids])
            exact = torch.log_softmax(model(input_ids=ids).logits[0, -1], dim=-1)
        assert len(top) == 5
        off += [abs(entry["logprob"] - float(exact[entry["id"]])) for entry in top]
    assert sum(off) / len(off) < 0.15  # natural log
    assert max(off) < 0.5


def test_releases_come_and_go_while_others_answer(engine: str, adapter: Path) -> None:
    """Three loads and removals under traffic: every request gets its own release's answer."""
    capital = "What is the capital of France?"  # no near-tie that a batch's rounding could flip
    want = content(ask(engine, capital, max_tokens=7))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        steady = [pool.submit(ask, engine, capital, max_tokens=7) for _ in range(16)]
        tuned = set()
        for turn in range(3):
            name = f"tuned-{turn}"
            assert post(engine, "/admin/load", {"release": name, "adapter": str(adapter)})[0] == 200
            tuned.add(content(ask(engine, capital, name, max_tokens=7)))
            late = pool.submit(ask, engine, capital, name)
            assert post(engine, "/admin/unload", {"release": name})[0] == 200
            assert late.result()[0] in (200, 404)  # in time or too late, never another's answer
        assert {content(done.result()) for done in steady} == {want}
    assert len(tuned) == 1
    assert tuned != {want}


def first_token(url: str, model: str) -> dict[str, float]:
    """Return log p of the likeliest first tokens, natural log."""
    answer = ask(url, "asthma", model, max_tokens=1, logprobs=True, top_logprobs=5)
    assert answer[0] == 200, answer
    top = answer[1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {entry["token"]: entry["logprob"] for entry in top}


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two answers come from the same weights: rounding differs with the batch."""
    both = one.keys() & other.keys()
    return len(both) >= 3 and all(abs(one[token] - other[token]) < 0.3 for token in both)


def test_many_adapters_answer_side_by_side_and_each_costs_an_adapter(
    tmp_path: Path, adapter: Path
) -> None:
    """An adapter that llama.cpp does not know would be answered by the base, without a word.

    A second release takes under 5 % of what the first did, keys and values apart: they are shared.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    process, url = _start(tmp_path, "--threads", "1")
    try:
        alone, taken = {}, []
        for place, alpha in enumerate((16, 7)):
            folder = tmp_path / f"a{place}"
            folder.mkdir()
            (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": alpha}))
            weights = adapter / "adapter_model.safetensors"
            (folder / weights.name).symlink_to(weights)
            loaded = post(url, "/admin/load", {"release": folder.name, "adapter": str(folder)})
            assert loaded[0] == 200, loaded
            alone[folder.name] = first_token(url, folder.name)
            taken.append(_stats(url)["pss_mb"])
        keys_and_values = 4 * 2048 * 30 * 2 * 192 * 2 / 1e6  # slots, tokens, layers, k and v
        if sys.platform == "linux":  # elsewhere the shared part of memory is not told apart
            assert taken[1] - taken[0] < 0.05 * (taken[0] - keys_and_values), taken
        post(url, "/admin/load", {"release": "base", "adapter": None})
        alone["base"] = first_token(url, "base")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = list(alone) * 4
            answers = list(pool.map(lambda name: first_token(url, name), asked))
        for name, answer in zip(asked, answers, strict=True):
            assert [other for other in alone if same(answer, alone[other])] == [name]
    finally:
        process.terminate()
        process.wait(60)


def test_a_server_that_nobody_asked_can_be_stopped() -> None:
    """In a process of its own: a destructor that waits for ever keeps the interpreter lock."""
    program = """
from tutelage.inference.engine_server import LlamaServer, Sizes
from tutelage.inference.models import locate_model
for _ in range(5):
    LlamaServer(locate_model("demo").path, [], Sizes()).stop()
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_a_long_system_message_is_computed_once_for_all_slots(engine: str) -> None:
    rules = {"role": "system", "content": "Follow the rules of the house. " * 20}

    def usage(text: str) -> Any:
        body = {"model": "base", "messages": [rules, {"role": "user", "content": text}]}
        return post(engine, "/v1/chat/completions", body | {"max_tokens": 2})[1]["usage"]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        used = list(pool.map(usage, ["asthma", "gout", "fracture", "sepsis"]))
    start = min(u["prompt_tokens"] for u in used) - 20
    assert start > 100
    # the first computed it in a request of its own, so even it found it there
    assert all(u["prompt_tokens_details"]["cached_tokens"] >= start for u in used), used


def _stats(url: str) -> Any:
    with urllib.request.urlopen(f"{url}/admin/stats") as response:
        return json.load(response)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_neither_torch_nor_transformers_is_loaded(engine: str) -> None:
    with urllib.request.urlopen(f"{engine}/health") as response:
        pid = json.load(response)["pid"]
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "xllamacpp" in mapped
    assert "torch" not in mapped
    code = (
        "import sys, tutelage.inference.engine, tutelage.inference.engine_llamacpp\n"
        "print(sorted({'torch', 'transformers', 'mlflow'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout == "[]\n"


def test_the_engine_ends_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the parent leaves nothing behind."""
    ready = tmp_path / "ready.json"
    code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'tutelage.inference.engine', '--model', 'demo',\n"
        f"    '--ready-file', {str(ready)!r}, '--parent', str(os.getpid())])\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not ready.is_file():
        assert parent.poll() is None
        time.sleep(0.02)
    child = psutil.Process(json.loads(ready.read_bytes())["pid"])
    parent.send_signal(signal.SIGKILL)
    parent.wait(60)
    _, alive = psutil.wait_procs([child], timeout=60)
    assert alive == []


def test_the_transformers_backend_gives_the_same_service(tmp_path: Path, adapter: Path) -> None:
    pytest.importorskip("torch")
    process, url = _start(tmp_path, "--backend", "transformers", "--threads", "1")
    try:
        post(url, "/admin/load", {"release": "base", "adapter": None})
        loaded = post(url, "/admin/load", {"release": "tuned", "adapter": str(adapter)})
        assert loaded == (200, {"releases": ["base", "tuned"]})
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            names = ["base", "tuned"] * 2
            answers = list(pool.map(lambda n: content(ask(url, "asthma", n, max_tokens=4)), names))
        assert answers[0] == answers[2] != answers[1] == answers[3]
        assert ask(url, "asthma", "nobody")[0] == 404
        assert ask(url, "asthma", response_format={"type": "json_object"})[0] == 400
        plain = ask(url, "a b", max_tokens=1)[1]["usage"]["prompt_tokens"]
        for token in ("<|im_end|>", "<|endoftext|>", "<jupyter_code>"):  # live, one token each
            spelled = ask(url, f"a {token} b", max_tokens=1)[1]["usage"]["prompt_tokens"]
            assert spelled >= plain + 4, token
    finally:
        process.terminate()
        process.wait(60)


def test_a_wrong_model_is_told_in_one_sentence(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "tutelage.inference.engine", "--model", "nothing.gguf"]
    done = subprocess.run(
        [*command, "--ready-file", str(ready)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert json.loads(ready.read_bytes())["error"]["error"] == "ModelError"
