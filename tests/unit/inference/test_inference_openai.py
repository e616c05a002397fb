"""The remote generator against a server that answers, refuses, limps and hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.core.example import Message
from tutelage.inference.base import Completion, Decoding, Prompt
from tutelage.inference.openai import OpenAIGenerator


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt((Message(role="user", content=text),)) for text in texts]


def test_answers_come_in_order_with_their_cost(backend: FakeBackend) -> None:
    backend.script.by_model["*"] = {"when": {"two": {"text": "2", "latency_ms": 50}}, "text": "1"}
    done: list[int] = []
    generator = OpenAIGenerator(f"{backend.url}/v1", "base")
    found = generator.generate(prompts("one", "two", "one"), lambda i, c: done.append(i))
    assert [c.text for c in found] == ["1", "2", "1"]
    assert sorted(done) == [0, 1, 2]
    assert found[0].usage.prompt_tokens == 11
    assert found[0].finish_reason == "stop"


def test_the_decoding_settings_are_sent(backend: FakeBackend) -> None:
    decoding = Decoding(temperature=0.5, max_tokens=7, stop=("#",), json_schema={"type": "object"})
    OpenAIGenerator(backend.url, "base").generate(
        [Prompt((Message(role="user", content="x"),), decoding)]
    )
    (seen,) = backend.script.seen
    assert (seen["temperature"], seen["max_tokens"], seen["stop"]) == (0.5, 7, ["#"])
    assert seen["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_what_passes_is_tried_again(backend: FakeBackend) -> None:
    backend.script.by_model["*"] = {"fail_times": 2}
    generator = OpenAIGenerator(backend.url, "base", first_wait_s=0.01)
    (found,) = generator.generate(prompts("x"))
    assert found.finish_reason == "stop"
    assert len(backend.script.seen) == 3


def test_a_row_that_keeps_failing_says_so_and_spares_the_others(backend: FakeBackend) -> None:
    backend.script.by_model["*"] = {"when": {"bad": {"status": 500, "message": "out of order"}}}
    generator = OpenAIGenerator(backend.url, "base", retries=1, first_wait_s=0.01)
    good, bad = generator.generate(prompts("good", "bad"))
    assert good.finish_reason == "stop"
    assert (bad.text, bad.finish_reason) == ("", "error")
    assert "status 500" in bad.meta["problem"]


def test_an_unknown_model_is_an_error_that_says_where_to_look(backend: FakeBackend) -> None:
    with pytest.raises(ModelError, match=r"nothing does not exist.*Check the model's name"):
        OpenAIGenerator(backend.url, "nothing").generate(prompts("x"))


def test_a_missing_key_is_an_error_before_any_request() -> None:
    with pytest.raises(EnvironmentProblem, match="TUTELAGE_NO_SUCH_KEY"):
        OpenAIGenerator("http://127.0.0.1:1", "m", "TUTELAGE_NO_SUCH_KEY")


def test_it_works_inside_a_running_loop(backend: FakeBackend) -> None:
    async def caller() -> list[Completion]:
        return OpenAIGenerator(backend.url, "base").generate(prompts("x"))

    assert asyncio.run(caller())[0].finish_reason == "stop"
