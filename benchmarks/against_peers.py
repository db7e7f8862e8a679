"""The same work by this library and by others, side by side: they take turns in one run.

Every contender is a process in a Python environment of its own, which is given; what is not given
is left out. All of them are started and compile first. Then each does the work once in each round,
the order turning from round to round, on seeds of its own; the first round is not counted. Figures
are medians over rounds, and medians of the ratios within each round. Before any of that, what a
contender says to have done is compared with the work: environment steps, gradient steps, batch,
network, seeds.

    python benchmarks/against_peers.py cartpole --python rejax=PYTHON --python purejaxrl=PYTHON \\
        --purejaxrl CHECKOUT --rounds 7 --json benchmarks/results/against_peers_cartpole.json
    python benchmarks/against_peers.py cartpole --python sb3=PYTHON --python tianshou=PYTHON \\
        --rounds 3 --env-steps 40000

`--smallest` does little of the work, to see that everything runs.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import contenders
from contenders import take_turns

CARTPOLE = {
    "env": "CartPole-v1",
    "network": "mlp",
    "obs_size": 4,
    "num_actions": 2,
    "num_envs": 10,
    "buffer_size": 10_000,
    "batch_size": 128,
    "hidden_sizes": [120, 84],
    "updates_per_env_step": 0.1,
    "start_timesteps": 10_000,
    "env_steps": 500_000,
    "target_update_period": 50,
    "epsilon_decay_steps": 250_000,
    "num_seeds": 1,
}
BREAKOUT = {
    "env": "Breakout-MinAtar",
    "network": "cnn",
    "num_actions": 3,
    "num_envs": 64,
    "buffer_size": 102_400,
    "batch_size": 128,
    "hidden_sizes": [128],
    "updates_per_env_step": 1 / 64,
    "start_timesteps": 5_120,
    "env_steps": 128_000,
    "target_update_period": 100,
    "epsilon_decay_steps": 64_000,
    "num_seeds": 1,
}
WORKS = {
    "cartpole": CARTPOLE,
    "cartpole_8_seeds": {**CARTPOLE, "num_seeds": 8, "env_steps": 200_000},
    "cartpole_32_seeds": {**CARTPOLE, "num_seeds": 32, "env_steps": 100_000},
    "cartpole_4096_envs": {
        **CARTPOLE,
        "num_envs": 4096,
        "buffer_size": 409_600,
        "updates_per_env_step": 1 / 4096,
        "start_timesteps": 40_960,
        "env_steps": 8_192_000,
    },
    "breakout": BREAKOUT,
    "breakout_8_seeds": {**BREAKOUT, "num_seeds": 8, "env_steps": 64_000},
}
CONTENDERS = {
    "jaxrl_cb": "ours.py",
    "purejaxrl": "purejaxrl_dqn.py",
    "rejax": "rejax_dqn.py",
    "flashbax": "flashbax_dqn.py",
    "sb3": "sb3_dqn.py",
    "tianshou": "tianshou_dqn.py",
    "matmul_floor": "matmul_floor.py",
}
"""Each one's script in `peers`. The floor is no trainer: the matrix products of one seed alone."""
ONLY_MLP = ("purejaxrl", "rejax", "sb3", "tianshou", "matmul_floor")
"""What has no convolution, or not the same one."""
ONE_SEED = ("sb3", "tianshou")
"""What trains seeds one by one, so that a row of several would say nothing new."""


class Contender(contenders.Contender):
    """A process that does the work once whenever it is asked to."""

    def run(self, seed: int) -> dict[str, Any]:
        """Does the work from the beginning.

        Raises:
            RuntimeError: it did other work.
        """
        done, work = super().run(seed), self.work
        updates = (work["env_steps"] - work["start_timesteps"]) * work["updates_per_env_step"]
        expected = {key: work[key] for key in ("env_steps", "batch_size", "hidden_sizes")}
        expected |= {"updates": round(updates), "num_seeds": work["num_seeds"]}
        if self.name == "matmul_floor":
            expected["num_seeds"] = 1
        differing = {key: (done[key], want) for key, want in expected.items() if done[key] != want}
        if differing:
            raise RuntimeError(f"{self.name} did other work (done, wanted): {differing}")
        return done


def rows_of(all_of_them: list[Contender]) -> list[dict[str, Any]]:
    """Medians, and ratios to the first contender, round by round."""
    rows = []
    for contender in all_of_them:
        work = contender.work
        seeds = 1 if contender.name == "matmul_floor" else work["num_seeds"]
        seconds = statistics.median(contender.seconds)
        updates = (work["env_steps"] - work["start_timesteps"]) * work["updates_per_env_step"]
        pairs = zip(contender.seconds, all_of_them[0].seconds, strict=True)
        row = {
            "name": contender.name,
            "seconds": contender.seconds,
            "median_seconds": seconds,
            "env_steps_per_second": work["env_steps"] * seeds / seconds,
            "us_per_update": seconds / updates / seeds * 1e6,
            "times_ours": statistics.median(theirs / ours for theirs, ours in pairs),
        }
        rows.append(row | contender.about)
    return rows


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Microseconds of a gradient step, a dot for each round and a bar for the median."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        micro = row["us_per_update"]
        color = "tab:gray" if row["name"] == "matmul_floor" else "tab:blue"
        axes.barh(y, micro, color=color, alpha=0.6)
        each = [micro * seconds / row["median_seconds"] for seconds in row["seconds"]]
        axes.plot(each, [y] * len(each), "k.", markersize=4)
        axes.annotate(f"{row['times_ours']:.2f}x", (0, y), (4, 0), textcoords="offset points")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(xlabel="microseconds per gradient step of a seed", title=title)
    axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def named(text: str) -> tuple[str, str]:
    """Reads NAME=PATH."""
    name, equals, path = text.partition("=")
    if not equals or name not in CONTENDERS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH, {sorted(CONTENDERS)}")
    return name, path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--python", type=named, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--purejaxrl", help="path of its checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--env-steps", type=int, help="in place of the work's, for fast machines")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    work = WORKS[arguments.work] | {"purejaxrl": arguments.purejaxrl}
    if arguments.env_steps:
        work |= {"env_steps": arguments.env_steps}
    if arguments.smallest:
        work |= {"env_steps": work["start_timesteps"] + 200 * work["num_envs"]}
    pythons = {"jaxrl_cb": sys.executable, "matmul_floor": sys.executable, **dict(arguments.python)}
    names = [name for name in CONTENDERS if name in pythons]
    if work["network"] != "mlp":
        names = [name for name in names if name not in ONLY_MLP]
    if work["num_seeds"] > 1:
        names = [name for name in names if name not in ONE_SEED]
    all_of_them = [Contender(name, pythons[name], CONTENDERS[name], work) for name in names]
    take_turns(all_of_them, arguments.rounds)
    rows = rows_of(all_of_them)
    print("| | seconds | environment steps / s | us per gradient step | time / ours |")
    print("|---|---|---|---|---|")
    for row in rows:
        rate, micro = row["env_steps_per_second"], row["us_per_update"]
        ratio, seconds = row["times_ours"], row["median_seconds"]
        print(f"| {row['name']} | {seconds:.2f} | {rate:,.0f} | {micro:.1f} | {ratio:.2f} |")
    if arguments.json:
        from jaxrl_cb.versions import versions

        about = {"command": sys.argv, "versions": versions(), "work": work}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
    if arguments.png:
        plot(rows, arguments.work, arguments.png)


if __name__ == "__main__":
    main()
