"""The agent, with slow passes that come soon, and say what they took.

    python -c "from benchmarks.hurried import main; main()" run --config …

Nothing else about it is different: no more can be told from outside, where a pass that finds everything
in order leaves no trace.
"""

from __future__ import annotations

import os
import sys
import time

from harmony_agent.apply.controller import Controller
from harmony_agent.cli import main as agent
from harmony_agent.drift import watcher

__all__ = ["EVERY_S", "PASSED", "main"]

EVERY_S = "HARMONY_BENCHMARK_PASS_S"
"""The variable that says about how often."""
PASSED = "slow pass "
"""How a line on its output begins: then come the milliseconds that were computed."""
_LOOK = Controller.look_at_settled


async def _pass_over(self: Controller) -> set[str]:
    began = time.process_time()
    looked = await _LOOK(self)
    print(f"{PASSED}{(time.process_time() - began) * 1_000:.4f}", flush=True)
    return looked


def main() -> None:
    watcher.SLOW_PASS_S = float(os.environ[EVERY_S])
    Controller.look_at_settled = _pass_over  # type: ignore[method-assign] # as the head says
    sys.exit(agent(sys.argv[1:]))
