"""What looking for NaN and infinity costs: a chunk with the checks against one without them.

Both programs are compiled in one process, of the same learner on CartPole-v1 with one gradient step
for each vector step; without checks, the three functions of `jaxrl_cb.ops.finite` are constants
while the program is traced, so that the compiler takes out what they fed. The two run in turn, the
first of each pair changing; a figure is the median over the pairs of the ratio of their seconds.

    python benchmarks/nan_overhead.py --repeats 201
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.trainer.programs import ProgramPlan, Programs, compile_programs, forget
from jaxrl_cb.versions import versions

SIZES = {  # hidden sizes, environments, batch, vector steps of a chunk
    "small": ((64,), 16, 64, 1000),
    "large": ((256, 256), 256, 128, 100),
}


def learner_of(hidden: tuple[int, ...], num_envs: int, batch_size: int) -> ReplayLearner:
    """One gradient step for each vector step."""
    replay = ReplayConfig(
        num_envs=num_envs,
        batch_size=batch_size,
        samples_per_insert=batch_size / num_envs,
        buffer_size=100_096,
        start_timesteps=10 * num_envs,
    )
    return ReplayLearner(make("CartPole-v1"), DQN(MLP(2, hidden)), replay)


@contextlib.contextmanager
def without_checks():
    """Within it, programs are traced with nothing that looks for NaN or infinity."""
    constants = {
        "jaxrl_cb.learners.acting.num_nonfinite": lambda *arrays: jnp.int32(0),
        "jaxrl_cb.learners.replay.index_if_nonfinite": lambda value, index: jnp.int32(NEVER),
        "jaxrl_cb.trainer.programs.all_finite": lambda tree: jnp.bool_(True),
    }
    with contextlib.ExitStack() as stack:
        for name, function in constants.items():
            stack.enter_context(mock.patch(name, function))
        yield


def compiled(learner: ReplayLearner, length: int) -> Programs:
    """The programs, compiled anew."""
    forget()
    return compile_programs(learner, ProgramPlan(1, (length,), 1, jax.local_devices()[0]))


def measured(size: str, repeats: int) -> dict:
    """The figures of a size."""
    *shape, length = SIZES[size]
    learner = learner_of(*shape)
    programs = {"with": compiled(learner, length)}
    with without_checks():
        programs["without"] = compiled(learner, length)
    values = learner.initial_values(10_000_000)
    inputs = [np.zeros(1, np.uint32), *jax.tree.map(lambda x: np.full((1,), x), values)]
    states = {name: p.init(*jax.device_put(tuple(inputs))) for name, p in programs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}

    def run(name: str) -> float:
        started = time.perf_counter()
        states[name], metrics = programs[name].chunks[length](states[name])
        jax.block_until_ready((states[name], metrics))
        return time.perf_counter() - started

    for repeat in range(-2, repeats):  # the first two are not counted
        for name in list(programs)[:: 1 if repeat % 2 else -1]:
            duration = run(name)
            if repeat >= 0:
                seconds[name].append(duration)
    ratios = [a / b for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "size": size,
        "hidden_sizes": shape[0],
        "num_envs": shape[1],
        "batch_size": shape[2],
        "vector_steps": length,
        "median_ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "ratio_of_fastest": round(min(seconds["with"]) / min(seconds["without"]), 4),
        "microseconds_per_vector_step": {
            name: round(1e6 * statistics.median(values) / length, 2)
            for name, values in seconds.items()
        },
    }


def main() -> None:
    """Prints a row for each size and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES), help="small, large")
    parser.add_argument("--repeats", type=int, default=201)
    parser.add_argument("--json", default=Path(__file__).parent / "results/nan_overhead.json")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        rows.append(measured(size, arguments.repeats))
        print(json.dumps(rows[-1]), flush=True)
    command = " ".join(["python benchmarks/nan_overhead.py", *sys.argv[1:]])
    data = {"command": command, "repeats": arguments.repeats, "rows": rows, "versions": versions()}
    Path(arguments.json).write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
