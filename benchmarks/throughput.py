"""Environment steps per second over the number of environments and of seeds, part by part.

At each point five things are timed in one process, in turn, the order turning from repeat to
repeat: random actions in the environments; the same with the network's actions; with a replay that
is written to and drawn from; with a gradient step for each vector step, which is the trainer's own
compiled chunk; and the trainer with its callbacks, its tests not counted. What is read is summed,
so that nothing can be left out. Figures are medians.

    python benchmarks/throughput.py --num-envs 1 16 256 4096 65536 \\
        --json benchmarks/results/throughput.json --png docs/images/throughput.png
    python benchmarks/throughput.py --num-envs 16 --seeds 1 4 16 64 256

On CPU seeds run one after another on one device here. "host" is the trainer's time beyond that of
its compiled chunks; "MiB" is what the compiled chunk takes, state and working memory; "compile" is
the wall time of all programs that training needs, beside those of the other parts.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import levels
import numpy as np

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import OptimizerConfig, ReplayConfig, ReplayLearner, TargetConfig
from jaxrl_cb.networks import NETWORKS
from jaxrl_cb.trainer import (
    EpochStopCallbackRewardThreshold,
    EpochTestCallbackDQNSetEps,
    EpochTrainCallbackDQNEpsLinearDecay,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
)
from jaxrl_cb.trainer.programs import ProgramPlan, compile_programs, over_seeds
from jaxrl_cb.versions import versions

PARTS = (*levels.LEVELS, "learning", "callbacks")
NEVER = 1e9  # a return that no policy reaches


def learner_of(arguments: argparse.Namespace, num_envs: int) -> ReplayLearner:
    """One gradient step for each vector step; the network without LayerNorm, as peers have it."""
    environment = make(arguments.env)
    network = NETWORKS[arguments.network](
        environment.spec.num_actions, tuple(arguments.hidden), layer_norm=False
    )
    batch = arguments.batch_size
    first = -(-batch // num_envs) * num_envs
    replay = ReplayConfig(
        num_envs=num_envs,
        buffer_size=max(-(-arguments.buffer_size // num_envs), 2) * num_envs,
        batch_size=batch,
        samples_per_insert=batch / num_envs,
        start_timesteps=first,
    )
    target = TargetConfig(tau=1.0, target_update_period=50)
    optimizer = OptimizerConfig(learning_rate=2.5e-4, max_grad_norm=None)
    return ReplayLearner(
        environment, DQN(network, double=False), replay, target, optimizer=optimizer
    )


def length_of(num_envs: int, width: int, at_once: int) -> int:
    """Vector steps of a call: about `at_once` environment steps, 8 to 2,000."""
    return min(max(at_once // (num_envs * width), 8), 2_000)


class Part:
    """A compiled program, with a state of each seed that it goes on with."""

    def __init__(self, run: Any, states: list[Any]):
        self._run, self._states = run, states

    def seconds(self) -> float:
        started = time.perf_counter()
        results = [self._run(state) for state in self._states]
        self._states = [state for state, _ in results]
        jax.block_until_ready(results)
        return time.perf_counter() - started


class WithCallbacks:
    """The trainer; its tests are not counted."""

    def __init__(self, learner: ReplayLearner, num_seeds: int, length: int):
        callbacks = TrainerCallbacks(
            EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 10**6),
            EpochTestCallbackDQNSetEps(0.0),
            EpochStopCallbackRewardThreshold(NEVER),
        )
        params = TrainerParams(
            max_epochs=10**4,
            epoch_num_steps=length * learner.num_envs,
            chunk_num_steps=length * learner.num_envs,
            num_test_episodes=1,
            num_seeds=num_seeds,
        )
        self._trainer = Trainer(learner, params, callbacks)
        self._trainer.init()

    def seconds(self) -> float:
        started = time.perf_counter()
        record = self._trainer.execute_epoch()
        return time.perf_counter() - started - record.test_seconds


class Point:
    """So many environments and seeds; compiled when made, measured later."""

    def __init__(self, arguments: argparse.Namespace, num_envs: int, num_seeds: int, pool: Any):
        self._arguments, self._num_seeds = arguments, num_seeds
        self._learner = learner = learner_of(arguments, num_envs)
        self._width = width = TrainerParams(num_seeds=num_seeds).seeds_together
        self._length = length = length_of(num_envs, width, arguments.at_once)
        self._plan = plan = ProgramPlan(width, (length,), 1, jax.local_devices()[0])
        self._values = jax.tree.map(lambda x: np.full((width,), x), learner.initial_values(10**6))
        seeds = np.zeros(width, np.uint32)
        axes = learner.state_axes()
        state = jax.eval_shape(
            over_seeds(learner.init, width, (0, 0, 0), axes), seeds, *self._values
        )
        lowered = {
            name: jax.jit(levels.program(learner, name, length, width), donate_argnums=0).lower(
                state
            )
            for name in arguments.parts
            if name in levels.LEVELS
        }

        def compile_trainer() -> tuple[Any, float]:
            started = time.perf_counter()
            return compile_programs(learner, plan), time.perf_counter() - started

        self._programs = pool.submit(compile_trainer)
        self._levels = {name: pool.submit(program.compile) for name, program in lowered.items()}

    def _states(self) -> list[Any]:
        width, programs = self._width, self._programs.result()[0]
        firsts = range(0, self._num_seeds, width)
        own = [np.arange(first, first + width, dtype=np.uint32) for first in firsts]
        return [programs.init(*jax.device_put((seeds, *self._values))) for seeds in own]

    def _part(self, name: str) -> Any:
        if name == "callbacks":
            return WithCallbacks(self._learner, self._num_seeds, self._length)
        programs = self._programs.result()[0]
        is_level = name in levels.LEVELS
        run = self._levels[name].result() if is_level else programs.chunks[self._length]
        return Part(run, self._states())

    def measure(self) -> dict[str, Any]:
        """The figures."""
        arguments, num_envs = self._arguments, self._learner.num_envs
        programs, compile_seconds = self._programs.result()
        parts = {name: self._part(name) for name in arguments.parts}
        seconds: dict[str, list[float]] = {name: [] for name in parts}
        for repeat in range(-1, arguments.repeats):  # the first is not counted
            names = list(parts)
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                calls, total = 0, 0.0
                while not calls or total < arguments.seconds:
                    total += parts[name].seconds()
                    calls += 1
                if repeat >= 0:
                    seconds[name].append(total / calls)
        steps = self._length * num_envs * self._num_seeds
        sizes = programs.chunks[self._length].compiled.memory_analysis()
        bytes_used = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
        rates = {name: steps / statistics.median(values) for name, values in seconds.items()}
        row = {
            "num_envs": num_envs,
            "num_seeds": self._num_seeds,
            "vector_steps": self._length,
            "seconds": seconds,
            "env_steps_per_second": rates,
            "compile_seconds": compile_seconds,
            "mib": bytes_used * self._num_seeds / self._width / 2**20,
        }
        if {"learning", "callbacks"} <= parts.keys():
            pairs = zip(seconds["learning"], seconds["callbacks"], strict=True)
            row["host_share"] = statistics.median(1 - chunk / whole for chunk, whole in pairs)
        return row


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    rates = [f"{row['env_steps_per_second'].get(name, float('nan')):,.0f}" for name in PARTS]
    host = f"{row.get('host_share', float('nan')):.1%}"
    cells = [row["num_envs"], row["num_seeds"], *rates, host]
    return "| {} | {:.1f} | {:,.0f} |".format(
        " | ".join(map(str, cells)), row["compile_seconds"], row["mib"]
    )


def plot(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Environment steps per second over environments times seeds, a line for each part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in PARTS:
        own = [row for row in rows if name in row["env_steps_per_second"]]
        own.sort(key=lambda row: row["num_envs"] * row["num_seeds"])
        x = [row["num_envs"] * row["num_seeds"] for row in own]
        label = name if name == PARTS[0] else f"+ {name}"
        axes.loglog(x, [r["env_steps_per_second"][name] for r in own], marker="o", label=label)
    axes.set(xlabel="environments (of all seeds)", ylabel="environment steps / s", title=title)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", nargs="?", default="CartPole-v1")
    parser.add_argument("--num-envs", nargs="+", type=int, default=[1, 16, 256, 4096, 65536])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--hidden", nargs="+", type=int, default=[120, 84])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--buffer-size", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a timing at least")
    parser.add_argument("--at-once", type=int, default=2**21, help="environment steps of a call")
    parser.add_argument(
        "--together", action="store_true", help="compile all points at once, before the first"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    names = " | ".join([PARTS[0], *(f"+ {name}" for name in PARTS[1:])])
    print(f"| environments | seeds | {names} | host | compile, s | MiB |")
    print("|---" * (len(PARTS) + 5) + "|")
    sizes = [(envs, seeds) for seeds in arguments.seeds for envs in arguments.num_envs]
    rows = []
    with ThreadPoolExecutor() as pool:
        points = (Point(arguments, *size, pool) for size in sizes)
        for point in list(points) if arguments.together else points:
            rows.append(point.measure())
            print(line(rows[-1]), flush=True)
    if arguments.json:
        about = {"command": sys.argv, "versions": versions(), "rows": rows}
        arguments.json.write_text(json.dumps(about, indent=2) + "\n")
    if arguments.png:
        plot(rows, arguments.png, f"{arguments.env}, {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
