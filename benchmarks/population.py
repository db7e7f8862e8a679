"""Population-based training against the best of many fixed learning rates.

Fixed rates are a sweep, each with as many seeds as the population has members; the best of them, by
the mean of the seeds' last tests, is trained again on fresh seeds. The population begins with
rates spread over the same range, on the same fresh seeds, and takes what one of them takes.

    python benchmarks/population.py --json benchmarks/results/population.json
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import jaxrl_cb
from jaxrl_cb.machine import use_all_cores
from jaxrl_cb.scores import last_of, summarize
from jaxrl_cb.trainer import (
    EpochTrainCallback,
    EpochTrainCallbackPopulationBasedTraining,
    TrainerCallbacks,
    TrainResult,
)
from jaxrl_cb.versions import versions


class SetRates(EpochTrainCallback):
    """Sets the seeds' learning rates before the first epoch."""

    def __init__(self, rates: list[float]):
        self.rates = rates

    def callback(self, epoch: int, env_step: int, context: Any) -> None:
        """Sets them."""
        if epoch == 1:
            context.policy.set_learning_rate(np.array(self.rates))


def scores_of(result: TrainResult) -> np.ndarray:
    """[S] last test of each seed."""
    return last_of(np.stack([record.mean for record in result.history]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=3000)
    parser.add_argument("--max-epochs", type=int, default=15)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--low", type=float, default=1e-5)
    parser.add_argument("--high", type=float, default=1e-1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rates", type=int, default=8)
    arguments = parser.parse_args()
    use_all_cores(arguments.seeds)
    shared = {
        "num_seeds": arguments.seeds,
        "max_epochs": arguments.max_epochs,
        "learning_rate_schedule": "constant",
        "verbose": False,
    }
    rates = np.geomspace(arguments.low, arguments.high, arguments.rates).tolist()
    first, started = arguments.first_seed, time.perf_counter()
    fixed = jaxrl_cb.sweep(arguments.env, {"learning_rate": rates}, seed=first, **shared)
    seconds = time.perf_counter() - started
    found: dict[str, Any] = {
        "fixed": [
            {"learning_rate": rate, "score": list(fixed.interval(index))}
            for index, rate in enumerate(rates)
        ],
        "fixed_seconds": seconds,
    }
    for row in found["fixed"]:
        low, mean, high = row["score"]
        print(f"learning rate {row['learning_rate']:.2g}: {mean:.1f} [{low:.1f}, {high:.1f}]")

    def run(name: str, callbacks: list[EpochTrainCallback], **own: Any) -> dict[str, Any]:
        """A run on the fresh seeds."""
        started = time.perf_counter()
        fresh = {"seed": first + 1_000, "callbacks": TrainerCallbacks(callbacks)}
        result = jaxrl_cb.train(arguments.env, **(shared | fresh | own))
        score = summarize(scores_of(result)[:, None]).mean
        print(f"{name}, fresh seeds: {score}", flush=True)
        row = {"seconds": time.perf_counter() - started, "score": list(score)}
        return row | {"scores": scores_of(result).tolist()}

    best = fixed.best.settings["learning_rate"]
    spread = np.geomspace(arguments.low, arguments.high, arguments.seeds).tolist()
    population = EpochTrainCallbackPopulationBasedTraining(arguments.every)
    found["best_rate"] = best
    found["best"] = run(f"the best fixed rate, {best:.2g}", [], learning_rate=best)
    found["population"] = run("the population", [SetRates(spread), population])
    found["spread"] = run("the same rates, fixed", [SetRates(spread)])
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
