"""An environment over several seeds: steps and seconds to the confirmed stop, then real Gymnasium.

Each seed is a run of its own in one process, so that its seconds are its own; `train_seconds` leave
out what the first one spends on compiling. The best policy then plays `--episodes` episodes of
Gymnasium's environment of the same name.

    python benchmarks/solve.py CartPole-v1 Acrobot-v1 MountainCar-v0 --seeds 10

`--trial N` takes the settings of a row of `results/tune_ENV.jsonl` in place of the preset;
`--settings '{"batch_size": 64}'` overrides single ones.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import jaxrl_cb
from jaxrl_cb.envs import make
from jaxrl_cb.gymnasium_play import play_gymnasium
from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks
from jaxrl_cb.versions import versions

RESULTS = Path(__file__).parent / "results"


def solve(env: str, seed: int, episodes: int, settings: dict) -> dict:
    """One seed: a row of figures."""
    callbacks = TrainerCallbacks(epoch_stop_callback=EpochStopCallbackConfirmedRewardThreshold())
    started = time.perf_counter()
    result = jaxrl_cb.train(env, seed=seed, callbacks=callbacks, verbose=False, **settings)
    seconds = time.perf_counter() - started
    # starts of their own for every run, so that no common sample of them decides for all
    first_start = 1_000_000 + 1_000 * seed
    returns = play_gymnasium(result.best_policy, env, episodes=episodes, seed=first_start)
    return {
        "env": env,
        "seed": seed,
        "stopped": result.stopped,
        "env_step": result.env_step,
        "seconds": round(seconds, 2),
        "train_seconds": round(seconds - result.seconds["compile"], 2),
        "best_score": result.best_score,
        "gymnasium_mean": float(returns.mean()),
    }


def summary(env: str, rows: list[dict]) -> dict:
    """Medians and worst of the rows of an environment."""
    threshold = make(env).spec.reward_threshold
    steps, seconds, means = (
        [row[name] for row in rows] for name in ("env_step", "train_seconds", "gymnasium_mean")
    )
    return {
        "env": env,
        "seeds": [row["seed"] for row in rows],
        "stopped": sum(row["stopped"] for row in rows),
        "env_step": {"median": float(np.median(steps)), "worst": max(steps)},
        "train_seconds": {"median": round(float(np.median(seconds)), 2), "worst": max(seconds)},
        "gymnasium": {
            "threshold": threshold,
            "reached": sum(mean >= threshold for mean in means),
            "lowest_mean": min(means),
        },
    }


def main() -> None:
    """Runs all seeds of all environments; prints a row for each, then the summaries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--trial", type=int, help="row of results/tune_ENV.jsonl")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--json", help="file to write the rows to")
    arguments = parser.parse_args()
    summaries, rows = [], []
    for env in arguments.envs:
        settings = {}
        if arguments.trial is not None:
            record = (RESULTS / f"tune_{env}.jsonl").read_text().splitlines()
            settings = json.loads(record[arguments.trial])["settings"]
        settings |= arguments.settings
        own = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            own.append(solve(env, seed, arguments.episodes, settings))
            print(own[-1], flush=True)
        rows += own
        summaries.append(summary(env, own))
    for line in summaries:
        print(json.dumps(line))
    print(json.dumps(versions()))
    if arguments.json:
        data = {"rows": rows, "summaries": summaries, "versions": versions()}
        Path(arguments.json).write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
