"""Many seeds with a threshold stop: a seed that stops costs nothing any more.

The seeds are trained together with the confirmed stop, then without it, so that each takes all its
epochs as it would where stopped seeds go on computing; then some of them as runs of their own, as
many processes at a time as there are cores, with the command line's cache of programs, which the
first of them fills (it is not counted). Of some seeds it is checked that they are, alone, bit for
bit what they are among the others, and stop at the same epoch. With ``--patience`` the stop is
another one, which counts the tests of its own seed.

    python benchmarks/seeds.py --seeds 256 --json benchmarks/results/seeds.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxrl_cb
from jaxrl_cb.machine import use_all_cores
from jaxrl_cb.trainer import (
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackNoImprovement,
    TrainerCallbacks,
    TrainResult,
)
from jaxrl_cb.versions import versions


def trained(arguments: argparse.Namespace, *, stops: bool, **settings: Any) -> TrainResult:
    """A run of these seeds, with or without the stop."""
    patience = arguments.patience
    stop = EpochStopCallbackConfirmedRewardThreshold()
    stop = EpochStopCallbackNoImprovement(patience) if patience else stop
    return jaxrl_cb.train(
        arguments.env,
        callbacks=TrainerCallbacks(epoch_stop_callback=stop if stops else None),
        max_epochs=arguments.max_epochs,
        verbose=False,
        **settings,
    )


def row_of(result: TrainResult, seconds: float, name: str) -> dict[str, Any]:
    """What a run of many seeds took."""
    epochs = np.atleast_1d(result.epoch)
    return {
        "name": name,
        "seconds": seconds,
        "by": result.seconds,
        "seed_epochs": int(epochs.sum()),
        "stopped": int(np.atleast_1d(result.stopped).sum()),
        "epochs_median": float(np.median(epochs)),
    }


def equal_alone(arguments: argparse.Namespace, together: TrainResult, index: int) -> bool:
    """Whether a seed's run alone is bit for bit what it was among the others."""
    alone = trained(arguments, stops=True, seed=arguments.first_seed + index)
    pairs = [
        (together.policy[index], alone.policy),
        (together.best_policy[index], alone.best_policy),
    ]
    equal = [
        np.array_equal(ours, theirs)
        for one, other in pairs
        for ours, theirs in zip(*map(jax.tree.leaves, (one.params, other.params)), strict=True)
    ]
    return all(equal) and int(together.epoch[index]) == alone.epoch


def separate_seconds(arguments: argparse.Namespace, processes: int) -> float:
    """Wall seconds of `arguments.separate` runs, so many processes at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:

        def run(seed: int) -> None:
            command = [sys.executable, "-m", "jaxrl_cb", "train", arguments.env]
            command += ["--seed", str(seed), "--max-epochs", str(arguments.max_epochs)]
            command += ["--run-dir", str(Path(folder) / str(seed))]
            subprocess.run(command, check=True, capture_output=True)

        first = arguments.first_seed
        run(first + arguments.separate)  # fills the cache
        started = time.perf_counter()
        list(pool.map(run, range(first, first + arguments.separate)))
        return time.perf_counter() - started


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--max-epochs", type=int, default=15)
    parser.add_argument("--patience", type=int, help="stop after so many tests without a new best")
    parser.add_argument("--alone", type=int, default=8, help="seeds that are run alone as well")
    parser.add_argument("--separate", type=int, default=16, help="runs in processes of their own")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_all_cores(arguments.seeds)
    many = {"seed": arguments.first_seed, "num_seeds": arguments.seeds}
    rows, results = [], []
    for name, stops in (("with the stop", True), ("without it", False)):
        started = time.perf_counter()
        results.append(trained(arguments, stops=stops, **many))
        rows.append(row_of(results[-1], time.perf_counter() - started, name))
        print(json.dumps(rows[-1]), flush=True)
    together = results[0]
    chosen = np.linspace(0, arguments.seeds - 1, arguments.alone).astype(int).tolist()
    equal = [equal_alone(arguments, together, index) for index in chosen]
    print(f"{sum(equal)} of {len(equal)} seeds alone: equal bits and equal epochs", flush=True)
    found: dict[str, Any] = {"rows": rows, "alone": chosen, "equal": sum(equal)}
    if arguments.separate:
        seconds = separate_seconds(arguments, jax.local_device_count())
        found |= {"separate": {"runs": arguments.separate, "seconds": seconds}}
        each = seconds / arguments.separate
        ours = rows[0]["seconds"] / arguments.seeds
        print(f"{each:.2f} s for each separate run, {ours:.2f} s for each of the seeds together")
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
