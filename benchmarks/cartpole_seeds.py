"""CartPole-v1 over several seeds: steps and seconds to the confirmed stop, then real Gymnasium.

Each seed is a run of its own in one process, so that its seconds are its own; the first one
includes compiling. The best policy then plays `--episodes` episodes of Gymnasium's CartPole-v1.

    python benchmarks/cartpole_seeds.py --seeds 10
"""

import argparse
import json
import platform
import time

import gymnasium
import numpy as np

import jaxrl_cb
from jaxrl_cb.run_folder import versions
from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks


def play_gymnasium(policy, env_id: str, episodes: int, seed: int) -> np.ndarray:
    """Greedy returns of complete episodes in Gymnasium, stepped side by side."""
    envs = [gymnasium.make(env_id) for _ in range(episodes)]
    obs = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    returns, alive = np.zeros(episodes), np.ones(episodes, bool)
    while alive.any():
        actions = policy.act(obs)
        for i in np.flatnonzero(alive):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            returns[i] += reward
            alive[i] = not (terminated or truncated)
    return returns


def main() -> None:
    """Runs all seeds and prints a row for each, then a summary as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--json", help="file to write the rows to")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        stop = EpochStopCallbackConfirmedRewardThreshold()
        callbacks = TrainerCallbacks(epoch_stop_callback=stop)
        started = time.perf_counter()
        result = jaxrl_cb.train("CartPole-v1", seed=seed, callbacks=callbacks, verbose=False)
        seconds = time.perf_counter() - started
        returns = play_gymnasium(result.best_policy, "CartPole-v1", arguments.episodes, 10_000)
        rows.append(
            {
                "seed": seed,
                "stopped": result.stopped,
                "env_step": result.env_step,
                "seconds": round(seconds, 2),
                "train_seconds": round(result.seconds["train"] + result.seconds["test"], 2),
                "gymnasium_mean": float(returns.mean()),
            }
        )
        print(rows[-1], flush=True)
    steps = [row["env_step"] for row in rows]
    summary = {
        "stopped": sum(row["stopped"] for row in rows),
        "env_step_median": float(np.median(steps)),
        "env_step_worst": max(steps),
        "train_seconds_median": float(np.median([row["train_seconds"] for row in rows])),
        "gymnasium_475": sum(row["gymnasium_mean"] >= 475 for row in rows),
        "processor": platform.processor() or platform.machine(),
        **versions(),
    }
    print(json.dumps(summary))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"rows": rows, "summary": summary}, file, indent=2)


if __name__ == "__main__":
    main()
