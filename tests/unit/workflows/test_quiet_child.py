"""Children beside a gateway: a low priority, an end when the gateway ends, a status."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tutelage.workflows.quiet_child import run_quietly


@pytest.mark.skipif(not hasattr(os, "nice"), reason="the system knows no priorities")
def test_a_child_gives_way_and_its_words_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = "import os, sys, time; time.sleep(0.5); print(os.nice(0)); sys.exit(3)"
    assert asyncio.run(run_quietly(("-c", code), log)) == 3
    assert int(log.read_text()) > os.nice(0)
    assert asyncio.run(run_quietly(("-c", "print('data')"), log, keep_output=False)) == 0
    assert "data" not in log.read_text()


@pytest.mark.parametrize("patient", [False, True])
def test_a_cancelled_child_ends(tmp_path: Path, patient: bool) -> None:
    """A patient end lets the child say goodbye; else it is killed."""
    log = tmp_path / "child.log"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit(0)))\n"
        "print('here', flush=True)\n"
        "time.sleep(60)\n"
    )

    async def cut_off() -> None:
        child = asyncio.create_task(run_quietly(("-c", code), log, patient=patient))
        while not (log.exists() and "here" in log.read_text()):
            await asyncio.sleep(0.01)
        child.cancel()
        with pytest.raises(asyncio.CancelledError):
            await child

    asyncio.run(cut_off())
    assert ("goodbye" in log.read_text()) is patient
