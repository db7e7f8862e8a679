"""The table of README: what every algorithm reaches, from the results of `algorithms.py`.

    python benchmarks/algorithms_table.py            # of all benchmarks/results/algorithms_*.json
    python benchmarks/algorithms_table.py some.json

A cell of a task that has a return to reach: seeds by which it was confirmed within the steps that
the task allows, and whose last policies still reach it (in Gymnasium too); environment steps to it
(median), seconds to it of a seed alone (median; from `wall_time_*.json`, the results of `--stop`),
and the IQM of the last policies with its 95 % stratified bootstrap interval. Of a MinAtar game: the
environment steps and that IQM.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from algorithms import NO_TASK, TASKS, summary

from jaxrl_cb.algorithms import VARIANTS

RESULTS = Path(__file__).parent / "results"


Rows = dict[tuple[str, str], list[dict[str, Any]]]
"""By environment and algorithm."""


def paths(kind: str = "algorithms") -> list[Path]:
    """Of all results that are kept."""
    return sorted(RESULTS.glob(f"{kind}_*.json"))


def rows_of(paths: list[Path]) -> Rows:
    """Rows of all files.

    Raises:
        SystemExit: two files have the same seed of the same algorithm.
    """
    found: Rows = {}
    for path in paths:
        for row in json.loads(path.read_text())["rows"]:
            own = found.setdefault((row["env"], row["algorithm"]), [])
            if row["seed"] in {other["seed"] for other in own}:
                sys.exit(f"{path}: seed {row['seed']} of {row['algorithm']} is there twice")
            own.append(row)
    return found


def cell(rows: list[dict[str, Any]], timed: list[dict[str, Any]] | None = None) -> str:
    """What the seeds of an algorithm reach in an environment, and how soon the timed ones do."""
    found = summary(rows)
    low, iqm, high = (f"{value:.1f}".removesuffix(".0") for value in found["final_iqm"])
    text = f"{iqm} [{low}, {high}]"
    if "score" not in found:
        return f"{rows[0]['env_step'] / 1e6:.1f} M: {text}, {len(rows)} seeds"
    median = found["confirmed_env_step_median"]
    steps = "never" if median is None else f"{np.round(median / 1_000, 1):g} k"
    reached = f"{found['confirmed_within']} and {found['final_reaches']} of {len(rows)}"
    if "gymnasium_reaches" in found:
        reached += f" ({found['gymnasium_reaches']} in Gymnasium)"
    if timed:
        late = [row["seconds"] if row["confirmed_env_step"] else math.inf for row in timed]
        middle = float(np.median(late))
        steps += ", never" if math.isinf(middle) else f", {float(f'{middle:.2g}'):g} s"
    return f"{reached}, {steps}; {text}"


def games(rows: Rows, algorithm: str) -> str:
    """What an algorithm reaches in MinAtar's games, in one cell."""
    names = [env for env, task in TASKS.items() if task == NO_TASK and (env, algorithm) in rows]
    cells = [f"{env.removesuffix('-MinAtar')} {cell(rows[env, algorithm])}" for env in names]
    return "; ".join(cells)


def table(rows: Rows, timed: Rows) -> list[str]:
    """Lines of a table with a row for each algorithm that ran."""
    ran = {env for env, _ in rows}
    tasks = {env: task for env, task in TASKS.items() if env in ran and task != NO_TASK}
    heads = [f"{env}: {task.score:g} by {task.within:,}" for env, task in tasks.items()]
    if any(TASKS[env] == NO_TASK for env in ran):
        heads.append("gymnax-MinAtar")
    lines = [f"| {' | '.join(['', *heads])} |", "|---" * (len(heads) + 1) + "|"]
    for name in VARIANTS:
        cells = [
            cell(rows[env, name], timed.get((env, name))) if (env, name) in rows else ""
            for env in tasks
        ]
        cells = [*cells, games(rows, name)][: len(heads)]
        if any(cells):
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, metavar="RESULTS")
    rows, timed = rows_of(parser.parse_args().paths or paths()), rows_of(paths("wall_time"))
    print("\n".join(table(rows, timed)))


if __name__ == "__main__":
    main()
