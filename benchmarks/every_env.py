"""One row for every supported environment: random score, score after training, seconds.

The score is the mean undiscounted return of 100 greedy episodes of the best policy, on keys that
training never saw, over a few seeds. Environments with a preset train with it, the others
with the defaults for `--env-steps`; nothing stops a run early.

    python benchmarks/every_env.py --seeds 3 --env-steps 200000
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import jaxrl_cb
from jaxrl_cb.envs.gymnax import discrete_ids
from jaxrl_cb.presets import PRESETS
from jaxrl_cb.versions import versions


def row(env: str, seeds: int, env_steps: int) -> dict:
    """The figures of an environment."""
    has_preset = (env, "dqn") in PRESETS
    settings = {} if has_preset else {"max_epochs": env_steps // 10_000}
    random_mean, scores, train_seconds = 0.0, [], []
    started = time.perf_counter()
    for seed in range(seeds):
        result = jaxrl_cb.train(env, seed=seed, verbose=False, **settings)
        score, _ = jaxrl_cb.evaluate(result.best_policy, env, episodes=100, seed=7)
        scores.append(round(score, 3))
        train_seconds.append(round(result.seconds["train"] + result.seconds["test"], 1))
        if seed == 0:
            random_mean, _ = jaxrl_cb.evaluate(result.policy, env, episodes=1000, epsilon=1.0)
    return {
        "env": env,
        "settings": "preset" if has_preset else "default",
        "env_steps": int(result.env_step),
        "random": round(random_mean, 3),
        "scores": scores,
        "mean": round(float(np.mean(scores)), 3),
        "train_seconds": float(np.median(train_seconds)),
        "seconds_in_all": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Prints a row for each, then a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="*", help="by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=200_000)
    parser.add_argument("--json", help="file to write the rows to")
    arguments = parser.parse_args()
    rows = []
    for env in arguments.envs or discrete_ids():
        rows.append(row(env, arguments.seeds, arguments.env_steps))
        print(json.dumps(rows[-1]), flush=True)
        if arguments.json:
            data = {"rows": rows, "versions": versions()}
            Path(arguments.json).write_text(json.dumps(data, indent=2) + "\n")
    print("| environment | settings | environment steps | random | trained | per seed | seconds |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        per_seed = ", ".join(f"{score:g}" for score in r["scores"])
        print(
            f"| {r['env']} | {r['settings']} | {r['env_steps']:,} | {r['random']:g} | "
            f"{r['mean']:g} | {per_seed} | {r['train_seconds']:g} |"
        )


if __name__ == "__main__":
    main()
