"""A sweep with successive halving against the whole sweep: seconds, and whether the winner is one.

The trials are drawn at random from a space of learning rates, discounts and n-step returns; the
same are trained to the end, then with all but the best third dropped after some epochs, and again.
Winners are compared by fresh seeds: both are trained again from the beginning with others.

    python benchmarks/halving.py --json benchmarks/results/halving.json
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxrl_cb
from jaxrl_cb import log_uniform, sweep, uniform
from jaxrl_cb.machine import use_all_cores
from jaxrl_cb.scores import last_of
from jaxrl_cb.sweep_result import SweepResult
from jaxrl_cb.trainer import EpochTrainCallbackSuccessiveHalving, TrainerCallbacks
from jaxrl_cb.versions import versions

SPACE = {
    "learning_rate": log_uniform(1e-4, 3e-2),
    "gamma": uniform(0.9, 0.999),
    "n_step": [1, 5],
}


def row_of(result: SweepResult, seconds: float, name: str) -> dict[str, Any]:
    """What a sweep took, and what won."""
    best = result.best
    return {
        "name": name,
        "seconds": seconds,
        "seed_epochs": sum(row["epoch"] for row in result.rows()),
        "best": best.index,
        "settings": best.settings,
        "score": list(result.interval(best.index)),
        "ranking": result.ranking[:5],
        "scores": [float(result.scores(index).mean()) for index in result.ranking[:5]],
    }


def fresh_score(arguments: argparse.Namespace, settings: dict[str, Any]) -> float:
    """Mean last test of settings over other seeds than the sweep's."""
    seeds = {"seed": arguments.seed + 10_000, "num_seeds": arguments.fresh}
    own = {"max_epochs": arguments.max_epochs, "verbose": False}
    result = jaxrl_cb.train(arguments.env, **seeds, **own, **settings)
    return float(last_of(np.stack([record.mean for record in result.history])).mean())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--max-epochs", type=int, default=18)
    parser.add_argument("--first-rung", type=int, default=2)
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--fresh", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_all_cores(arguments.trials * arguments.seeds)
    halving = EpochTrainCallbackSuccessiveHalving(arguments.first_rung, arguments.factor)
    rows = []
    for name, callback in (("halving", halving), ("whole", None)):
        started = time.perf_counter()
        result = sweep(
            *(arguments.env, SPACE, arguments.trials),
            num_seeds=arguments.seeds,
            seed=arguments.seed,
            max_epochs=arguments.max_epochs,
            callbacks=TrainerCallbacks(callback),
            verbose=False,
        )
        rows.append(row_of(result, time.perf_counter() - started, name))
        print(json.dumps(rows[-1]), flush=True)
    for row in rows:
        row["fresh_score"] = fresh_score(arguments, row["settings"])
        print(f"{row['name']}: {row['fresh_score']:.1f} on {arguments.fresh} fresh seeds")
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
