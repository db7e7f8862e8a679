"""Replay on the device: seconds to add and draw, and bytes of a transition, beside flashbax's.

Breakout's observations: each vector step adds 64 transitions and draws a minibatch of 128, all of
which is read, in one compiled loop over a buffer that is full; where draws are by priority, what
was drawn gets another one, and importance weights are made. Observations come as bool or as
float32, as gymnax gives them. Contenders are processes of their own and take turns at each
capacity; what would take more than `--max-gib` is left out. Figures are medians.

    python benchmarks/replay.py --python PYTHON_WITH_FLASHBAX \\
        --json benchmarks/results/replay.json --png docs/images/replay.png
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from contenders import Contender, take_turns

CAPACITIES = (10_240, 102_400, 1_024_000, 5_120_000)
WORK = {"num_envs": 64, "batch_size": 128, "obs_shape": [10, 10, 4]}
BUFFERS = ("jaxrl_cb", "item", "flat", "jaxrl_cb_prioritised", "prioritised")
DTYPES = ("bool", "float32")
SIZE_OF = {"bool": 1, "float32": 4}


def gib(buffer: str, dtype: str, capacity: int) -> float:
    """About what a buffer takes, to leave out what does not fit."""
    elements = 400 / 8 if buffer.startswith("jaxrl_cb") else 400 * SIZE_OF[dtype]
    return capacity * elements * (2 if buffer == "item" else 1) / 2**30


def measure(arguments: argparse.Namespace, capacity: int) -> list[dict[str, Any]]:
    """The rows of a capacity."""
    work = WORK | {"capacity": capacity, "steps": arguments.steps}
    entrants = []
    for buffer in arguments.buffers:
        for dtype in DTYPES:
            is_ours = buffer.startswith("jaxrl_cb")
            python = sys.executable if is_ours else arguments.python
            if python and gib(buffer, dtype, capacity) <= arguments.max_gib:
                script = "ours_replay.py" if is_ours else "flashbax_replay.py"
                own = work | {"buffer": buffer, "dtype": dtype}
                entrants.append(Contender(f"{buffer}, {dtype}", python, script, own))
    results = take_turns(entrants, arguments.rounds)
    ours_of = {
        (entrant.work["dtype"], "prioritised" in entrant.name): entrant
        for entrant in entrants
        if "jaxrl" in entrant.name
    }
    rows = []
    for entrant, done in zip(entrants, results, strict=True):
        if (done["steps"], capacity) != (arguments.steps, entrant.work["capacity"]):
            raise RuntimeError(f"{entrant.name} did other work: {done}")
        ours = ours_of[entrant.work["dtype"], "prioritised" in entrant.name]
        pairs = zip(entrant.seconds, ours.seconds, strict=True)
        row = {
            "buffer": entrant.work["buffer"],
            "dtype": entrant.work["dtype"],
            "capacity": capacity,
            "seconds": entrant.seconds,
            "us_per_step": statistics.median(entrant.seconds) / arguments.steps * 1e6,
            "times_ours": statistics.median(theirs / own for theirs, own in pairs),
            "bytes_per_transition": done["bytes"] / capacity,
            "mean_of_what_was_read": done["total"] / arguments.steps,
        }
        rows.append(row | entrant.about)
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Microseconds and bytes over the capacity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    shown = (("us_per_step", "microseconds to add and draw"), ("bytes_per_transition", "bytes"))
    for axes, (name, label) in zip(panels, shown, strict=True):
        for buffer in BUFFERS:
            for dtype, style in zip(DTYPES, ("-", "--"), strict=True):
                own = [r for r in rows if (r["buffer"], r["dtype"]) == (buffer, dtype)]
                color = f"C{BUFFERS.index(buffer)}"
                axes.loglog(
                    [row["capacity"] for row in own],
                    [row[name] for row in own],
                    style,
                    marker="o",
                    color=color,
                    label=f"{buffer}, {dtype}",
                )
        axes.set(xlabel="capacity, transitions", title=label)
        axes.grid(visible=True, alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="interpreter of an environment with flashbax")
    parser.add_argument("--capacities", type=int, nargs="+", default=CAPACITIES)
    parser.add_argument("--buffers", nargs="+", choices=BUFFERS, default=BUFFERS)
    parser.add_argument("--steps", type=int, default=2_000, help="of the loop")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--max-gib", type=float, default=5.0, help="of one buffer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    if any(capacity % WORK["num_envs"] for capacity in arguments.capacities):
        parser.error(f"capacities are multiples of {WORK['num_envs']}")
    rows = [row for capacity in arguments.capacities for row in measure(arguments, capacity)]
    print("| capacity | buffer | observations | bytes | us | time / ours |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        size, micro = row["bytes_per_transition"], row["us_per_step"]
        print(
            f"| {row['capacity']:,} | {row['buffer']} | {row['dtype']} | {size:,.1f} "
            f"| {micro:.1f} | {row['times_ours']:.2f} |"
        )
    if arguments.json:
        from jaxrl_cb.versions import versions

        about = {"command": sys.argv, "versions": versions(), "work": WORK}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
    if arguments.png:
        plot(rows, arguments.png)


if __name__ == "__main__":
    main()
