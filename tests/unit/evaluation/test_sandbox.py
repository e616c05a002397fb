"""What a hostile program can't do, under each protection that works on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.evaluation.sandbox import seccomp
from tutelage.evaluation.sandbox.limits import MODES, Limits, Mode, Protection, Result
from tutelage.evaluation.sandbox.run import SandboxError, protection, run_code

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
SMALL = Limits(seconds=30, memory=256 << 20, file_size=1 << 20, output=20_000)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    if found == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        held = run_code([("probe", "pass")], mode=found).protection
    except SandboxError as error:
        pytest.skip(error.what)
    if not held.network_closed or not held.files_closed:
        pytest.skip(held.sentence())
    return found


def run(mode: Mode, source: str, limits: Limits = SMALL) -> Result:
    return run_code([("answer.py", source)], limits, mode=mode)


def test_a_program_runs_and_says_what_held_it(mode: Mode) -> None:
    found = run_code([("a", "x = 20"), ("b", "import math\nprint(x + 1)")], SMALL, mode=mode)
    assert (found.outcome, found.stdout, found.why) == ("passed", "21\n", None)
    assert found.protection.layers[-1] == "rlimits"
    assert ("landlock" if mode == "limits" else mode) == found.protection.layers[0]


NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except ConnectionRefusedError:
    print("reached")
except OSError as error:
    print("stopped", error)
"""


def test_there_is_no_network(mode: Mode) -> None:
    found = run(mode, NETWORK)
    assert found.outcome == "passed" and found.stdout.startswith("stopped")
    assert found.protection.network_closed


def test_without_a_filter_the_namespace_has_no_network_either(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    if mode != "namespaces":
        pytest.skip("of the namespace's own layer")
    code = (
        "import sys; from tutelage.evaluation.sandbox import seccomp, launcher; "
        "seccomp.table = lambda: None; launcher.main()"
    )
    monkeypatch.setattr("tutelage.evaluation.sandbox.run._START", code)
    found = run(mode, NETWORK)
    assert "seccomp" not in found.protection.layers
    assert found.stdout.startswith("stopped") and "unreachable" in found.stdout


SECRETS = """
import os, glob
assert "PLANTED" not in os.environ, "environment"
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        text = open(path, "rb").read()
    except OSError:
        continue
    assert b"a secret of the parent" not in text, path
"""


def test_the_environment_of_the_parent_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setenv("PLANTED", "a secret of the parent")
    assert run(mode, SECRETS).why is None


def test_files_outside_can_be_neither_read_nor_written(mode: Mode, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("for the owner only")
    assert "Error" in (run(mode, f"open({str(secret)!r}).read()").why or "")
    assert "Error" in (run(mode, f"open({str(secret)!r}, 'w')").why or "")
    assert "Error" in (run(mode, f"open({str(tmp_path / 'new')!r}, 'w')").why or "")
    assert run(mode, f"import os\nos.remove({str(secret)!r})").outcome == "failed"
    assert run(mode, f"import os\nos.chmod({str(secret)!r}, 0)").outcome == "failed"
    assert secret.read_text() == "for the owner only" and list(tmp_path.iterdir()) == [secret]
    assert "Error" in (run(mode, "open('/usr/bin/new', 'w')").why or "")


def test_the_folder_is_fresh_and_gone_afterwards(
    mode: Mode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = "import os\nassert os.listdir('.') == []\nopen('made', 'w').write('x')"
    assert run(mode, source).why is None
    assert run(mode, source).why is None
    assert list(tmp_path.iterdir()) == []


def test_descriptors_are_not_inherited(mode: Mode, tmp_path: Path) -> None:
    path = tmp_path / "open.txt"
    path.write_text("x")
    number = os.open(path, os.O_RDONLY)
    os.set_inheritable(number, True)
    try:
        source = "import os\nfor n in range(3, 60):\n    try: os.fstat(n)\n"
        source += "    except OSError: continue\n    print(n)"
        assert run(mode, source).stdout == ""
    finally:
        os.close(number)


def test_a_report_on_a_high_descriptor_is_closed_too(mode: Mode) -> None:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(80)]
    try:
        source = "import os\nfor n in range(3, 400):\n    try: os.write(n, b'{}')\n"
        source += "    except OSError: continue\n    print(n)"
        assert run(mode, source).stdout == ""
    finally:
        for number in held:
            os.close(number)


def test_no_other_process_can_be_started(mode: Mode) -> None:
    found = run(mode, "import os\nwhile True:\n    os.fork()")
    assert found.outcome == "failed" and "PermissionError" in (found.why or "")
    found = run(mode, "import subprocess\nsubprocess.run(['/bin/true'])")
    assert found.outcome == "failed"
    started = "import threading\nt = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()"
    assert run(mode, started).stdout == "1\n"


def test_a_fork_bomb_ends_at_the_number_of_processes(mode: Mode) -> None:
    if mode == "bubblewrap" and os.geteuid() == 0:
        pytest.skip("the kernel does not count root's processes")
    if mode == "limits" and os.geteuid() == 0:
        pytest.skip("the kernel does not count root's processes")
    bomb = (
        "import os, signal\nmade = 0\n"
        "while made < 500:\n"
        "    try: child = os.fork()\n"
        "    except OSError: break\n"
        "    if child == 0: signal.pause()\n"
        "    made += 1\n"
        "print(made)"
    )
    found = run(mode, bomb, Limits(seconds=30, processes=6))
    assert found.outcome == "passed" and 1 <= int(found.stdout) <= 8


def test_what_it_leaves_running_dies_with_it(mode: Mode) -> None:
    if mode == "limits":
        pytest.skip("without a namespace it may start no process at all, or none is hidden")
    left = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)"
    assert run(mode, left, Limits(seconds=60, processes=4)).outcome == "passed"


def test_an_endless_loop_is_killed(mode: Mode) -> None:
    found = run(mode, "while True: pass", Limits(seconds=1.5))
    assert (found.outcome, found.why) == ("timeout", "it ran out of time")
    found = run(mode, "import time\ntime.sleep(999)", Limits(seconds=1.5))
    assert found.outcome == "timeout" and found.exit_code is None


def test_a_memory_hog_is_stopped(mode: Mode) -> None:
    found = run(mode, "held = []\nwhile True: held.append(bytearray(10_000_000))")
    assert (found.outcome, found.why) == ("memory", "it ran out of memory")


def test_endless_output_is_cut(mode: Mode) -> None:
    found = run(mode, "while True: print('x' * 1000)")
    assert found.outcome == "output" and len(found.stdout) <= SMALL.output


def test_files_have_a_size(mode: Mode) -> None:
    found = run(mode, "with open('big', 'wb') as f: f.write(b'x' * 5_000_000)")
    assert found.outcome == "failed" and "File too large" in (found.why or "")
    if mode != "limits":
        many = "for i in range(100):\n    with open(str(i), 'wb') as f: f.write(b'x' * 1_000_000)"
        found = run(mode, many, Limits(seconds=30, disk=8 << 20))
        assert "No space left" in (found.why or "")


@pytest.mark.parametrize(
    "source", ["import os\nos._exit(0)", "raise SystemExit(0)", "import os\nos.abort()", "exit("]
)
def test_who_ends_early_has_not_passed(mode: Mode, source: str) -> None:
    found = run_code([("answer.py", source), ("tests.py", "assert False")], SMALL, mode=mode)
    assert found.outcome in ("failed", "crashed") and found.why


def test_other_processes_are_left_alone(mode: Mode) -> None:
    run(mode, "import os\nos.kill(os.getppid(), 9)")
    run(mode, f"import os\nos.kill({os.getpid()}, 9)")
    run(mode, "import os\nos.kill(-1, 9)")  # all that it may: at most itself


def test_the_strongest_that_works_is_taken() -> None:
    held = protection()
    assert held.sentence().startswith(", ".join(held.layers))
    assert Protection("limits", ("rlimits",)).sentence() == (
        "rlimits: THE NETWORK IS OPEN, YOUR FILES CAN BE READ AND CHANGED"
    )


def test_a_sandbox_that_cannot_be_set_up_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.evaluation.sandbox.run._START", "raise SystemExit('no')")
    protection.cache_clear()
    with pytest.raises(SandboxError, match=r"can't be run safely on this machine \(namespaces"):
        protection()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    protection.cache_clear()


def test_both_processors_refuse_the_same_calls() -> None:
    import json

    path = Path(seccomp.__file__).with_name("syscalls.json")
    tables = json.loads(path.read_bytes())
    assert set(tables["x86_64"]["never"]) == set(tables["aarch64"]["never"])
    for calls in tables.values():
        for processes in (True, False):
            made = seccomp.program(calls, processes=processes, in_the_open=True, pid=1)
            assert len(made) < 4096 and all(len(step) == 8 for step in made)
    if platform.machine() in tables:
        assert seccomp.table() == tables[platform.machine()]
