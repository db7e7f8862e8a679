"""Processes that take turns at the same work, each in a Python environment of its own.

Their scripts are in `peers`; what they and this say to each other is in `peers/serving.py`.
"""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"


class Contender:
    """A process that does the work once whenever it is asked to.

    Attributes:
        name: of the row.
        work: what it was started with.
        seconds: of each round that counted.
        about: what it said when it was ready: versions, seconds to build.
    """

    def __init__(self, name: str, python: str, script: str, work: dict[str, Any]):
        command = [python, str(PEERS / script), json.dumps(work)]
        self.name = name
        self.work = work
        self.seconds: list[float] = []
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.about: dict[str, Any] = {}

    def wait(self) -> None:
        """Waits until it is ready."""
        self.about = self._read()

    def run(self, seed: int) -> dict[str, Any]:
        """Does the work once; gives its seconds, and what it says to have done."""
        assert self._process.stdin is not None
        print(seed, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")
        return json.loads(line)


def take_turns(
    contenders: Sequence[Contender], rounds: int, first_seed: int = 0
) -> list[dict[str, Any]]:
    """Waits for all, lets them take turns, and ends them; the first round is not counted.

    Args:
        contenders: that take turns.
        rounds: that count.
        first_seed: of the first round, which each after it adds 1 to.

    Returns:
        What each said to have done in the last round.
    """
    done: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        contender.wait()
    for number in range(rounds + 1):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            done[contender.name] = contender.run(first_seed + number)
            seconds = done[contender.name]["seconds"]
            if number:
                contender.seconds.append(seconds)
            print(f"round {number}, {contender.name}: {seconds:.3g} s", flush=True)
    for contender in contenders:
        contender.close()
    return [done[contender.name] for contender in contenders]
