"""tutelage.yaml as people write it: words that YAML has a meaning for, and slips of the pen."""

from __future__ import annotations

import pytest

from tutelage.core.config import Project
from tutelage.core.config_file import parse_config
from tutelage.core.errors import ConfigError

HEAD = "name: x\nmodel: demo\n"


def read(text: str) -> Project:
    return parse_config(HEAD + text, "tutelage.yaml")


def test_off_is_a_key_and_a_word() -> None:
    assert read("alerts: {off: [promoted]}\n").alerts.off == ["promoted"]
    assert read("telemetry: {traces: off, log: off}\n").telemetry.log == "off"
    assert read("telemetry: {traces: on}\n").telemetry.traces == "on"
    assert read("data: {privacy: {mode: off}}\n").data.privacy.mode == "off"
    assert read("web: {auth: on}\n").web.auth == "on"
    assert read("telemetry: {requests: yes}\n").telemetry.requests is True


def test_labels_that_yaml_takes_for_something_else_want_quotes() -> None:
    with pytest.raises(ConfigError) as caught:
        read("output:\n  labels: [yes, 2]\n")
    said = caught.value.sentence()
    assert "tutelage.yaml:4: output.labels.0: text is wanted, and YAML reads True there" in said
    assert "output.labels.1: text is wanted, and YAML reads 2 there: use quotes" in said
    assert read('output: {labels: ["yes", "2"]}\n').output.labels == ["yes", "2"]


def test_keys_that_stand_twice_are_named_with_both_lines() -> None:
    text = "deploy:\n  port: 1\n  port: 2\nalerts: {every: 5}\ndeploy:\n  redact: true\n"
    with pytest.raises(ConfigError) as caught:
        read(text)
    said = caught.value.sentence()
    assert "tutelage.yaml:7: 'deploy' stands in line 3 already" in said
    assert "tutelage.yaml:5: 'port' stands in line 4 already" in said


def test_a_merged_section_may_be_overridden() -> None:
    text = """deploy:
  engine: remote
  endpoints:
    - &one {name: blue, base_url: http://gpu-1:8000/v1, model: base}
    - {<<: *one, name: green, base_url: http://gpu-2:8000/v1}
"""
    assert [server.name for server in read(text).deploy.endpoints] == ["blue", "green"]


def test_an_alias_that_leads_back_is_no_endless_search() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'deploy\.again'"):
        read("deploy: &here\n  again: *here\n")


@pytest.mark.parametrize(
    "text", ["deploy: {timeout: .inf}", "prices: {hour: .inf}", "deploy: {limits: {latency: .nan}}"]
)
def test_numbers_have_an_end(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tutelage\.yaml:3: .*finite number"):
        read(text + "\n")


def test_lengths_of_time_fit_a_calendar() -> None:
    assert read("alerts: {keep: 36500d}\n").alerts.keep == "36500d"
    with pytest.raises(
        ConfigError, match=r"alerts\.keep: .999999w. is too long: write at most 36500d"
    ):
        read("alerts: {keep: 999999w}\n")


@pytest.mark.parametrize(
    "text", ["deploy: {keep_alive: 0s}", "alerts: {repeat: 0m}", "drift: {every: 0h}"]
)
def test_what_is_done_again_has_a_pause(text: str) -> None:
    with pytest.raises(ConfigError, match=r"it must be longer than 0s \(found '0.'\)"):
        read(text + "\n")
