"""Every algorithm: environment steps to a confirmed return, what stays of it, and IQM.

All seeds of an algorithm are trained together (or as many as `--together` says), without a stop,
from the environment's preset. At the first test that reaches the return, and on 100 fresh episodes
as well, a callback notes the environment steps; MinAtar's games have no such return. In the end the
last policy of each seed plays 100 fresh episodes, with `--gymnasium 100` as many in Gymnasium's
environment of the same name too. What was killed goes on with the same command (its run folders
lie in `--runs`), and what has ended is not trained again. With `--stop --together 1` the `seconds`
of a row are the wall time to the confirmed return, compilation, tests and files included (null for
a run that went on).

    python benchmarks/algorithms.py CartPole-v1 --algorithms dqn c51 --seeds 30 \\
        --json benchmarks/results/algorithms_CartPole-v1.json
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxrl_cb
from jaxrl_cb.algorithms import VARIANTS
from jaxrl_cb.config import resolve
from jaxrl_cb.gymnasium_play import play_gymnasium
from jaxrl_cb.machine import prepare
from jaxrl_cb.scores import summarize
from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks
from jaxrl_cb.versions import versions


class Task(NamedTuple):
    """What is asked of an environment.

    Attributes:
        score: mean return that counts as reached.
        within: environment steps in which it should be.
        until: environment steps after which it should still be there.
    """

    score: float
    within: int
    until: int


NO_TASK = Task(math.inf, 0, 10_000_000)  # no return counts as reached

TASKS = {
    "CartPole-v1": Task(475.0, 50_000, 100_000),
    "Acrobot-v1": Task(-85.0, 100_000, 120_000),
    "MountainCar-v0": Task(-105.0, 120_000, 128_000),
    **{
        f"{game}-MinAtar": NO_TASK
        for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
    },
}


class Notes(EpochStopCallbackConfirmedRewardThreshold):
    """Notes when the return was confirmed first, and stops there only if asked to."""

    at: int | None = None
    stops = False

    def should_stop(self, mean_rewards: float, context: Any) -> bool:
        """Looks only until it was confirmed."""
        if self.at is None and super().should_stop(mean_rewards, context):
            self.at = int(context.env_step)
        return self.stops and self.at is not None


def rows_of(
    env: str, algorithm: str, seeds: range, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each seed, all trained together."""
    task, count, settings = TASKS[env], len(seeds), settings_of(env, algorithm, arguments.settings)
    notes = None if task == NO_TASK else Notes(task.score)
    if notes:
        notes.stops = arguments.stop
    run_dir = arguments.runs / f"{env}__{algorithm}__{seeds[0]}{'_stop' * arguments.stop}"
    begun, start = run_dir.exists(), time.perf_counter()
    result = jaxrl_cb.train(
        *(env, algorithm),
        seed=seeds[0],
        num_seeds=count,
        callbacks=TrainerCallbacks(epoch_stop_callback=notes),
        run_dir=run_dir,
        resume="auto",
        verbose=False,
        **settings,
    )
    wall = None if begun else round((time.perf_counter() - start) / count, 2)
    means, _ = jaxrl_cb.evaluate(result.policy, env, episodes=100, seed=seeds[0])
    finals, each = np.atleast_1d(means).tolist(), result.seconds["train"] / count
    copies = result.callbacks if count > 1 else [result.callbacks]
    at = [_note(copy).at if notes else None for copy in copies]
    real = _in_gymnasium(result.policy, env, seeds, arguments.gymnasium)
    return [
        {
            **{"env": env, "algorithm": algorithm, "seed": seeds[index]},
            "confirmed_env_step": at[index],
            "final": finals[index],
            **({"gymnasium": real[index]} if real else {}),
            "env_step": int(np.atleast_1d(result.env_step)[index]),
            "train_seconds": round(each, 2),
            "seconds": wall,
            "curve": [round(float(record.mean[index]), 2) for record in result.history],
        }
        for index in range(count)
    ]


def settings_of(env: str, algorithm: str, named: dict[str, Any]) -> dict[str, Any]:
    """Those of a run, besides the preset: it is as long as the task asks for, or as the preset."""
    preset = resolve(env, algorithm, named).trainer
    least = -(-TASKS[env].until // preset.epoch_num_steps)
    return {"max_epochs": max(preset.max_epochs, least)} | named


def config_of(env: str, algorithm: str, named: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run but those that differ from seed to seed."""
    config = resolve(env, algorithm, settings_of(env, algorithm, named)).flat()
    return {name: value for name, value in config.items() if name not in ("seed", "num_seeds")}


def _in_gymnasium(policy: Any, env: str, seeds: range, episodes: int) -> list[float]:
    """Mean return of each seed's policy, which starts from places of its own."""
    return [
        float(play_gymnasium(policy[i], env, episodes=episodes, seed=1_000 * seed).mean())
        for i, seed in enumerate(seeds if episodes else ())
    ]


def _note(found: Any) -> Notes:
    return found[0] if isinstance(found, list) else found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows of an environment and an algorithm."""
    env, algorithm = rows[0]["env"], rows[0]["algorithm"]
    task, never = TASKS[env], sys.maxsize
    steps = [row["confirmed_env_step"] or never for row in rows]
    finals = np.array([row["final"] for row in rows])
    middle = float(np.median(steps))
    reached = {
        **task._asdict(),
        "confirmed_within": sum(step <= task.within for step in steps),
        "confirmed_env_step_median": None if middle >= never // 2 else middle,
        "final_reaches": int((finals >= task.score).sum()),
    }
    real = [row["gymnasium"] for row in rows if "gymnasium" in row]
    if real:
        reached["gymnasium_reaches"] = sum(mean >= task.score for mean in real)
    return {
        **{"env": env, "algorithm": algorithm, "seeds": len(rows)},
        **(reached if task != NO_TASK else {}),
        "final_iqm": list(summarize(finals[:, None]).iqm),
        "train_seconds": rows[0].get("train_seconds"),  # none where the machine was shared
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", choices=TASKS)
    parser.add_argument("--algorithms", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--together", type=int, help="seeds of one run; all if left out")
    parser.add_argument("--first-seed", type=int, default=1_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--stop", action="store_true", help="each seed ends once confirmed")
    parser.add_argument("--gymnasium", type=int, default=0, help="episodes there; 0 is none")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    together = arguments.together or arguments.seeds
    prepare(together)
    first, last = arguments.first_seed, arguments.first_seed + arguments.seeds
    parts = [range(low, min(low + together, last)) for low in range(first, last, together)]
    rows, summaries, configs = [], [], {env: {} for env in arguments.envs}
    for env in arguments.envs:
        for algorithm in arguments.algorithms:
            own = [row for part in parts for row in rows_of(env, algorithm, part, arguments)]
            rows += own
            summaries.append(summary(own))
            configs[env][algorithm] = config_of(env, algorithm, arguments.settings)
            print(json.dumps(summaries[-1]), flush=True)
            if arguments.json:
                about = {"command": sys.argv, "versions": versions()}
                data = {**about, "configs": configs, "summaries": summaries, "rows": rows}
                arguments.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
