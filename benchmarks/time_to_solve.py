"""A cold process to a solved CartPole-v1, everything included: this library and others.

Each run is a new process. Solved is a mean return of 475 over 100 greedy episodes. Others train as
long as their published settings say, and are tested on the way, the clock standing where the
library does not test itself: "first" is the first test at 475, "holds" the first from which on no
test falls below. This library's own runs end when a second set of 100 episodes on fresh keys has
confirmed the first, and both are that moment; `--train-on 500000` has it train on, tested after
each epoch, as another contender.

    python benchmarks/time_to_solve.py --python purejaxrl=PYTHON --purejaxrl CHECKOUT \\
        --python rejax=PYTHON --python sbx=PYTHON --python sb3=PYTHON --python tianshou=PYTHON \\
        --json benchmarks/results/time_to_solve.json --png docs/images/time_to_solve.png

The first run of each compiles bytecode and is not counted. With `--cache` runs share a persistent
cache of compiled programs, filled by the run that is not counted; else there is none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
THRESHOLD = 475
CONTENDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jaxrl_cb": ("jaxrl_cb", "solve_ours.py", {}),
    "purejaxrl DQN": ("purejaxrl", "solve_purejaxrl.py", {}),
    "rejax PQN": ("rejax", "solve_rejax.py", {"algorithm": "pqn"}),
    "rejax DQN": ("rejax", "solve_rejax.py", {"algorithm": "dqn"}),
    "SBX DQN": ("sbx", "solve_sb3.py", {"library": "sbx"}),
    "SB3 DQN": ("sb3", "solve_sb3.py", {"library": "sb3"}),
    "Tianshou DQN": ("tianshou", "solve_tianshou.py", {}),
}
"""By name: the Python environment that it needs, its script, and its work."""
NEVER = float("inf")
PARTS = ("import", "compile", "total")


def run(python: str, script: str, work: dict[str, Any], cache: str | None) -> dict[str, Any]:
    """One new process; what it tells."""
    environment = {**os.environ, "STARTED": repr(time.time())}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    command = [python, str(PEERS / script), json.dumps(work)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def solved(told: dict[str, Any]) -> dict[str, Any]:
    """Seconds and environment steps of the first test at the threshold, and of the lasting one."""
    tests = list(zip(told["seconds"], told["env_steps"], told["scores"], strict=True))
    reached = [score >= THRESHOLD for *_, score in tests]
    lasting = len(reached)
    while lasting and reached[lasting - 1]:
        lasting -= 1
    first = tests[reached.index(True)] if any(reached) else (NEVER, -1, 0)
    holds = tests[lasting] if lasting < len(tests) else (NEVER, -1, 0)
    return {
        "first": {"seconds": first[0], "env_steps": first[1]},
        "holds": {"seconds": holds[0], "env_steps": holds[1]},
        "final_score": tests[-1][2],
    }


def measure(arguments: argparse.Namespace, cache: str | None) -> list[dict[str, Any]]:
    """The rows of all contenders, which take turns."""
    pythons = {"jaxrl_cb": sys.executable, **dict(arguments.python)}
    entrants = {
        name: (pythons[needs], script, work)
        for name, (needs, script, work) in CONTENDERS.items()
        if needs in pythons and (not arguments.only or name in arguments.only)
    }
    common = {"purejaxrl": arguments.purejaxrl, "train_on": 0}
    if arguments.train_on:
        python, script, work = entrants["jaxrl_cb"]
        trained_on = f"jaxrl_cb, {arguments.train_on:,} steps"
        entrants[trained_on] = (python, script, work | {"train_on": arguments.train_on})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in entrants}
    seeds = range(arguments.first_seed - 1, arguments.first_seed + arguments.seeds)
    for seed in seeds:
        for name, (python, script, work) in entrants.items():
            is_first = seed < arguments.first_seed
            own = common | work | {"seed": max(seed, arguments.first_seed)}
            told = run(python, script, own, cache)
            row = {"seed": seed, **solved(told), **told}
            print(name, "warm-up" if is_first else f"seed {seed}", summary(row), flush=True)
            if not is_first:
                found[name].append(row)
    return [{"name": name, **medians(runs), "runs": runs} for name, runs in found.items()]


def summary(row: dict[str, Any]) -> str:
    """A run in one line."""
    first, holds = row["first"]["seconds"], row["holds"]["seconds"]
    return f"first {first:.2f} s, holds {holds:.2f} s, final {row['final_score']:.0f}"


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds; a run that never got there counts as infinitely long."""
    median = {
        f"{which}_{what}": statistics.median_low(
            [run[which][what] if run[which]["seconds"] < NEVER else NEVER for run in runs]
        )
        for which in ("first", "holds")
        for what in ("seconds", "env_steps")
    }
    parts = {part: statistics.median(run[part] for run in runs) for part in PARTS}
    held = sum(run["holds"]["seconds"] < NEVER for run in runs)
    return {**median, **parts, "held": held, "num_runs": len(runs)}


def text(value: float, form: str) -> str:
    """A figure, or that there is none."""
    return format(value, form) if value < NEVER else "never"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | import | compile | first, s (steps) | holds, s (steps) | seeds that hold | total |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = {which: text(row[f"{which}_env_steps"], ",.0f") for which in ("first", "holds")}
        lines.append(
            f"| {row['name']} | {row['import']:.2f} | {row['compile']:.2f} "
            f"| {text(row['first_seconds'], '.2f')} ({steps['first']}) "
            f"| {text(row['holds_seconds'], '.2f')} ({steps['holds']}) "
            f"| {row['held']} of {row['num_runs']} | {row['total']:.2f} s |"
        )
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Every seed's seconds until it is solved for good; those that never are stand at the edge."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    all_seconds = [run["holds"]["seconds"] for row in rows for run in row["runs"]]
    edge = 1.1 * max(
        [s for s in all_seconds if s < NEVER] + [run["total"] for r in rows for run in r["runs"]]
    )
    for y, row in enumerate(rows):
        seconds = [run["holds"]["seconds"] for run in row["runs"]]
        there = [s for s in seconds if s < NEVER]
        axes.plot(there, [y] * len(there), "o", color="tab:blue", alpha=0.6)
        if missing := len(seconds) - len(there):
            axes.text(edge, y, f"never: {missing} of {len(seconds)}", va="center", ha="right")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(
        xlim=(0, edge * 1.02), xlabel="seconds from the start of the process to solved for good"
    )
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)


def named(text: str) -> tuple[str, str]:
    """Reads NAME=PATH."""
    name, equals, path = text.partition("=")
    needed = sorted({needs for needs, *_ in CONTENDERS.values()})
    if not equals or name not in needed:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH, NAME of {needed}")
    return name, path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=named, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--purejaxrl", help="path of its checkout")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cache", action="store_true", help="share compiled programs")
    parser.add_argument("--train-on", type=int, default=0, metavar="STEPS")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = measure(arguments, cache if arguments.cache else None)
    print(table(rows))
    if arguments.json:
        from jaxrl_cb.versions import versions

        about = {"command": sys.argv, "versions": versions(), "rows": rows}
        never = json.dumps(about, indent=2).replace("Infinity", "null")  # JSON has no infinity
        arguments.json.write_text(never + "\n")
    if arguments.png:
        plot(rows, arguments.png)


if __name__ == "__main__":
    main()
