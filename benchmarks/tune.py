"""Searches settings for an environment and keeps a record of every trial.

A trial draws settings from the space below, at first at random, then near the best ones, and
trains on a few seeds, each until its confirmed stop or the end of the budget. Its cost is the mean
number of environment steps to the stop, twice the budget minus the best test's return where there
was none; where the environment has no threshold, minus the mean return of the last three tests. A
trial that is already hopeless on its first seeds is cut short. Presets are chosen from the record
and then checked on other seeds (`solve.py`).

    python benchmarks/tune.py Acrobot-v1 --trials 40 --seeds 100 101 102
    python benchmarks/tune.py Acrobot-v1 --algorithm pqn --threshold -85

Rows go to `benchmarks/results/tune_ENV.jsonl` (`tune_ENV_ALGORITHM.jsonl` of others than DQN); a
search that is started again goes on behind them.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

import jaxrl_cb
from jaxrl_cb.algorithms import VARIANTS
from jaxrl_cb.envs import make
from jaxrl_cb.presets import PRESETS
from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks
from jaxrl_cb.versions import versions

RESULTS = Path(__file__).parent / "results"

CLASSIC = {
    "num_envs": [16, 32, 64],
    "batch_size": [64, 128, 256],
    "samples_per_insert": [8.0, 16.0, 32.0, 64.0],
    "n_step": [1, 3, 5, 10],
    "double": [True, False],
    "dueling": [True, False],
    "loss": ["squared", "huber"],
    "tau": [1.0],
    "target_update_period": [25, 50, 100, 200, 500],
    "learning_rate": [5e-4, 1e-3, 2e-3, 4e-3],
    "learning_rate_schedule": ["linear", "constant"],
    "hidden_sizes": [(64, 64), (128, 128), (256, 256)],
    "gamma": [0.98, 0.99, 0.995],
    "buffer_size": [32_000, 128_000],
    "epsilon_final": [0.02, 0.05, 0.1],
    "epsilon_decay_steps": [2_000, 5_000, 10_000, 20_000],
    "start_timesteps": [640, 1_280, 5_120],
}
SMALL = {
    **CLASSIC,
    "hidden_sizes": [(64,), (64, 64), (128, 128)],
    "learning_rate": [2.5e-4, 5e-4, 1e-3, 2e-3],
    "samples_per_insert": [4.0, 8.0, 16.0, 32.0],
    "gamma": [0.95, 0.98, 0.99, 0.995],
    "epsilon_final": [0.02, 0.05, 0.1, 0.2],
    "epsilon_decay_steps": [2_000, 10_000, 20_000, 50_000],
}
MINATAR = {
    **CLASSIC,
    "num_envs": [64, 128],
    "batch_size": [128, 256, 512],
    "samples_per_insert": [1.0, 2.0, 4.0, 8.0],
    "n_step": [1, 3, 5],
    "target_update_period": [50, 100, 200, 500],
    "learning_rate": [2.5e-4, 5e-4, 1e-3, 2e-3],
    "hidden_sizes": [(128,), (256, 256), (512,)],
    "buffer_size": [128_000, 512_000],
    "epsilon_final": [0.01, 0.03, 0.1],
    "epsilon_decay_steps": [50_000, 100_000, 250_000],
    "start_timesteps": [5_120, 20_480],
}
ONLINE = {
    "num_envs": [8, 16, 32],
    "rollout_length": [8, 16, 32, 64],
    "num_minibatches": [2, 4, 8, 16, 32],
    "update_epochs": [1, 2, 4, 8, 16],
    "td_lambda": [0.5, 0.65, 0.8, 0.9, 0.95],
    "learning_rate": [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3],
    "learning_rate_schedule": ["linear", "constant"],
    "hidden_sizes": [(64, 64), (128, 128), (256, 256)],
    "gamma": [0.98, 0.99, 0.995],
    "loss": ["squared", "huber"],
    "epsilon_final": [0.01, 0.02, 0.05, 0.1],
    "epsilon_decay_steps": [5_000, 10_000, 20_000, 40_000],
}
ONLINE_SPACES = {
    "CartPole-v1": (ONLINE, {"epoch_num_steps": 4_096, "max_epochs": 24}),
    "Acrobot-v1": (ONLINE, {"epoch_num_steps": 8_192, "max_epochs": 12}),
    "MountainCar-v0": (ONLINE, {"epoch_num_steps": 8_192, "max_epochs": 15}),
}
SPACES = {
    "CartPole-v1": (CLASSIC, {"epoch_num_steps": 3_200, "max_epochs": 16}),
    "Acrobot-v1": (CLASSIC, {"epoch_num_steps": 3_200, "max_epochs": 16}),
    "MountainCar-v0": (CLASSIC, {"epoch_num_steps": 6_400, "max_epochs": 20}),
    "FrozenLake-misc": (
        SMALL,
        {"epoch_num_steps": 9_600, "max_epochs": 10, "num_test_episodes": 200},
    ),
    "DeepSea-bsuite": (SMALL, {"epoch_num_steps": 3_200, "max_epochs": 15}),
    "Breakout-MinAtar": (MINATAR, {"epoch_num_steps": 51_200, "max_epochs": 10}),
}
"""By environment: values to draw from, and settings that every trial has."""


def draw(space: dict, rng: random.Random, fixed: dict, rows: list[dict]) -> dict:
    """One point of the space whose gradient steps do not take minutes.

    Three quarters of the draws after the first twelve change a few settings of one of the five
    best trials so far.
    """
    best = sorted(rows, key=lambda row: row["cost"])[:5]
    while True:
        settings = {**{name: rng.choice(values) for name, values in space.items()}, **fixed}
        if len(rows) >= 12 and rng.random() < 0.75:
            changed = rng.sample(sorted(space), 3)
            old = dict(rng.choice(best)["settings"])
            settings = {**old, **{name: settings[name] for name in changed}, **fixed}
        steps = fixed["epoch_num_steps"] * fixed["max_epochs"]
        if "rollout_length" in settings:
            samples, rollout = steps * settings["update_epochs"], settings["rollout_length"]
            size = settings["num_envs"] * rollout / settings["num_minibatches"]
            if size < 8:  # a batch of few is slow and teaches little
                continue
        else:
            samples, size = steps * settings["samples_per_insert"], settings["batch_size"]
        updates = samples / size
        if updates < 50_000 and samples * settings["hidden_sizes"][0] ** 2 < 3e11:
            return settings


def run(env: str, algorithm: str, settings: dict, seed: int, threshold: float | None) -> dict:
    """One seed of a trial."""
    has_threshold = threshold is not None or make(env).spec.reward_threshold is not None
    stop = EpochStopCallbackConfirmedRewardThreshold(threshold) if has_threshold else None
    started = time.perf_counter()
    result = jaxrl_cb.train(
        *(env, algorithm),
        seed=seed,
        callbacks=TrainerCallbacks(None, None, stop),
        verbose=False,
        **settings,
    )
    last = float(np.mean([record.mean[0] for record in result.history[-3:]]))
    budget = settings["epoch_num_steps"] * settings["max_epochs"]
    missed = 2 * budget - result.best_score
    cost = (result.env_step if result.stopped else missed) if has_threshold else -last
    return {
        "seed": seed,
        "stopped": result.stopped,
        "env_step": result.env_step,
        "best": result.best_score,
        "last": last,
        "cost": cost,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Runs the search and prints the best trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", choices=SPACES)
    parser.add_argument("--algorithm", default="dqn", choices=VARIANTS)
    parser.add_argument("--threshold", type=float, help="in place of the environment's own")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--search-seed", type=int, default=0)
    arguments = parser.parse_args()
    env, algorithm = arguments.env, arguments.algorithm
    spaces = ONLINE_SPACES if VARIANTS[algorithm].regime == "online" else SPACES
    if env not in spaces:
        parser.error(f"there is no space for {algorithm} on {env}; there are {', '.join(spaces)}")
    space, fixed = spaces[env]
    path = RESULTS / f"tune_{env}{'' if algorithm == 'dqn' else '_' + algorithm}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    costs = [row["cost"] for row in rows]
    started = time.monotonic()
    for number in range(len(rows), len(rows) + arguments.trials):
        if time.monotonic() - started > 60 * arguments.minutes:
            break
        rng = random.Random(f"{env} {arguments.search_seed} {number}")
        settings = draw(space, rng, fixed, rows)
        if number == 0 and (env, algorithm) in PRESETS:  # the first to beat
            settings = {**PRESETS[env, algorithm], **fixed}
        results: list[dict] = []
        for seed in arguments.seeds:
            results.append(run(env, algorithm, settings, seed, arguments.threshold))
            mean = float(np.mean([result["cost"] for result in results]))
            if costs and mean > min(costs) + 1.0 * abs(min(costs)):
                break
        row = {"trial": number, "cost": mean, "settings": settings, "seeds": results}
        row["packages"] = versions()["packages"]
        costs.append(mean)
        rows.append(row)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"trial {number}: {mean:,.1f} ({len(results)} seeds), best {min(costs):,.1f}",
            flush=True,
        )
    for row in sorted(rows, key=lambda row: row["cost"])[:5]:
        print(f"{row['cost']:,.1f}", json.dumps(row["settings"]))


if __name__ == "__main__":
    main()
