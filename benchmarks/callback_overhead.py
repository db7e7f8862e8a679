"""What callbacks cost: training in epochs with all of them, against the same steps as one scan.

The scan is the trainer's own compiled chunk over all steps, called once; the trainer runs the same
number of steps in epochs of about 10 ms, 100 ms and 1 s, with callbacks before each epoch (epsilon
and learning rate), before each test and after it (threshold, confirmed threshold, no improvement,
wall time), and rows written to `metrics.jsonl`. The seconds of its tests are taken off. They take
turns, the order turning from repeat to repeat; figures are of the ratios within each repeat.

    python benchmarks/callback_overhead.py --json benchmarks/results/callback_overhead.json \\
        --png docs/images/callback_overhead.png

With `--seeds` the scan runs all of them as the trainer does, on one device.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from throughput import NEVER, Part

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import OptimizerConfig, ReplayConfig, ReplayLearner, TargetConfig
from jaxrl_cb.networks import MLP
from jaxrl_cb.run_files import Rows
from jaxrl_cb.trainer import (
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackNoImprovement,
    EpochStopCallbackRewardThreshold,
    EpochStopCallbackWallTime,
    EpochTestCallbackDQNSetEps,
    EpochTrainCallbackDQNEpsLinearDecay,
    EpochTrainCallbackLearningRateDecay,
    Logger,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
)
from jaxrl_cb.trainer.programs import ProgramPlan, compile_programs
from jaxrl_cb.versions import versions

EPOCH_SECONDS = (0.01, 0.1, 1.0)


class MetricsRows:
    """Writes rows as a run with a folder does."""

    def __init__(self, path: Path):
        self._rows = Rows(path)
        self._rows.start(keep=False)

    def write(self, step_type: str, step: int, data: dict[str, Any]) -> None:
        """Appends a row to the file."""
        self._rows.append(json.dumps({"step_type": step_type, "step": step, **data}) + "\n")


def learner_of(num_envs: int) -> ReplayLearner:
    """CartPole: one gradient step of 128 transitions for each vector step, hidden 120 and 84."""
    environment = make("CartPole-v1")
    network = MLP(environment.spec.num_actions, (120, 84), layer_norm=False)
    replay = ReplayConfig(
        num_envs=num_envs,
        buffer_size=1_000 * num_envs,
        batch_size=128,
        samples_per_insert=128 / num_envs,
        start_timesteps=100 * num_envs,
    )
    target = TargetConfig(tau=1.0, target_update_period=50)
    optimizer = OptimizerConfig(learning_rate=2.5e-4, max_grad_norm=None)
    return ReplayLearner(
        environment, DQN(network, double=False), replay, target, optimizer=optimizer
    )


def trainer_of(learner: ReplayLearner, length: int, num_seeds: int, logger: Logger) -> Trainer:
    """A trainer with all callbacks and epochs of `length` vector steps."""
    steps = length * learner.num_envs
    before = [
        EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 10**6),
        EpochTrainCallbackLearningRateDecay(2.5e-4, 1e-5, 10**9),
    ]
    after = [
        EpochStopCallbackRewardThreshold(NEVER),
        EpochStopCallbackConfirmedRewardThreshold(NEVER),
        EpochStopCallbackNoImprovement(10**9),
        EpochStopCallbackWallTime(NEVER),
    ]
    callbacks = TrainerCallbacks(before, EpochTestCallbackDQNSetEps(0.0), after)
    params = TrainerParams(
        max_epochs=10_000,
        epoch_num_steps=steps,
        chunk_num_steps=steps,
        num_test_episodes=1,
        num_seeds=num_seeds,
    )
    return Trainer(learner, params, callbacks, logger)


class Epochs:
    """A trainer that goes on for so many vector steps whenever it is asked to."""

    def __init__(self, trainer: Trainer, count: int):
        self._trainer, self._count = trainer, count
        trainer.init()

    def seconds(self) -> float:
        """Of the epochs without their tests."""
        started = time.perf_counter()
        records = [self._trainer.execute_epoch() for _ in range(self._count)]
        return time.perf_counter() - started - sum(record.test_seconds for record in records)


def scan_of(learner: ReplayLearner, length: int, num_seeds: int) -> Part:
    """The compiled chunk over `length` vector steps of all seeds."""
    width = TrainerParams(num_seeds=num_seeds).seeds_together
    plan = ProgramPlan(width, (length,), 1, jax.local_devices()[0])
    programs = compile_programs(learner, plan)
    values = jax.tree.map(lambda x: np.full((width,), x), learner.initial_values(10**6))
    firsts = range(0, num_seeds, width)
    seeds = [np.arange(first, first + width, dtype=np.uint32) for first in firsts]
    states = [programs.init(*jax.device_put((own, *values))) for own in seeds]
    return Part(programs.chunks[length], states)


def vector_step_seconds(scan: Part, length: int) -> float:
    """Median of a few calls, the first not counted."""
    return statistics.median([scan.seconds() for _ in range(6)][1:]) / length


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures."""
    learner, num_seeds = learner_of(arguments.num_envs), arguments.seeds
    step = vector_step_seconds(scan_of(learner, 200, num_seeds), 200)
    lengths = {f"{s:g} s": max(round(s / step), 1) for s in arguments.epoch_seconds}
    total = max(lengths.values())
    counts = {name: round(total / length) for name, length in lengths.items()}
    contenders: dict[str, Any] = {"scan": scan_of(learner, total, num_seeds)}
    for name, length in lengths.items():
        logger = MetricsRows(folder / f"{length}.jsonl")
        contenders[name] = Epochs(trainer_of(learner, length, num_seeds, logger), counts[name])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(-1, arguments.repeats):  # the first is not counted
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            found = contenders[name].seconds()
            if repeat >= 0:
                seconds[name].append(found)
    rows = []
    for name, length in lengths.items():
        # of as many steps as the scan's, where the epochs do not add up to them exactly
        scale = total / (length * counts[name])
        pairs = zip(seconds[name], seconds["scan"], strict=True)
        ratios = [scale * epochs / scan for epochs, scan in pairs]
        quartiles = statistics.quantiles(ratios, n=4)
        differences = [scale * e - s for e, s in zip(seconds[name], seconds["scan"], strict=True)]
        rows.append(
            {
                "epoch": name,
                "vector_steps": length,
                "epochs": counts[name],
                "overhead": statistics.median(ratios) - 1,
                "quartiles": [quartiles[0] - 1, quartiles[2] - 1],
                "ms_of_an_epoch": statistics.median(differences) / counts[name] * 1e3,
            }
        )
    return {"vector_steps": total, "us_per_vector_step": step * 1e6, "rows": rows} | {
        "seconds": seconds
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """Overhead of each length of epochs, with quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes, rows = figure.subplots(), found["rows"]
    middle = [100 * row["overhead"] for row in rows]
    low, high = zip(*(row["quartiles"] for row in rows), strict=True)
    below = [m - 100 * q for m, q in zip(middle, low, strict=True)]
    above = [100 * q - m for m, q in zip(middle, high, strict=True)]
    names = [f"epochs of {row['epoch']}" for row in rows]
    axes.bar(names, middle, yerr=[below, above], capsize=4, color="tab:blue")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="time beyond one scan, %", title="All callbacks and a row of figures per epoch")
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epoch-seconds", type=float, nargs="+", default=EPOCH_SECONDS)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    print("| epoch | vector steps | overhead | quartiles | ms of an epoch |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        low, high = row["quartiles"]
        print(
            f"| {row['epoch']} | {row['vector_steps']} | {row['overhead']:.1%} | "
            f"{low:.1%} to {high:.1%} | {row['ms_of_an_epoch']:.2f} |"
        )
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | found, indent=2) + "\n")
    if arguments.png:
        plot(found, arguments.png)


if __name__ == "__main__":
    main()
