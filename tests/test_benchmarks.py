"""Benchmarks run, and refuse to compare different work. Their figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import against_peers  # noqa: E402


@pytest.mark.slow
def test_contenders_take_turns_at_the_same_work(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "against_peers.py"), "cartpole", "--smallest"]
    done = subprocess.run(
        [*command, "--rounds", "2", "--json", str(tmp_path / "rows.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["jaxrl_cb", "matmul_floor"]
    assert [len(row["seconds"]) for row in found["rows"]] == [2, 2]
    order = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("round")]
    assert order[:4] == [
        *("round 0, jaxrl_cb", "round 0, matmul_floor"),
        *("round 1, matmul_floor", "round 1, jaxrl_cb"),
    ]


class Other(against_peers.Contender):
    """Says that it has trained half as often as it should."""

    def __init__(self, work):
        self.name, self.work = "other", work
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, text=True)

    def _read(self):
        work = self.work
        same = {key: work[key] for key in ("env_steps", "batch_size", "hidden_sizes", "num_seeds")}
        return same | {"updates": 24_500, "seconds": 1.0}


def test_other_work_is_not_compared():
    other = Other(against_peers.WORKS["cartpole"])
    with pytest.raises(RuntimeError, match=r"'updates': \(24500, 49000\)"):
        other.run(0)
    other.close()
