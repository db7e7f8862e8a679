"""What ``jaxrl-cb sweep`` does, and ``jaxrl-cb resume`` of a sweep's folder."""

import json as jsonlib
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from jaxrl_cb.commands import COMMAND, chosen_folder, command_of, given, stop_callbacks
from jaxrl_cb.errors import ConfigError


def sweep(
    env: Positional[str],
    settings: dict[str, Any],
    vary: tuple[str, ...] = (),
    space: Path | None = None,
    num_trials: int | None = None,
    algorithm: str = "dqn",
    run_dir: Path | None = None,
    resume: Literal["never", "auto", "must"] = "never",
    checkpoint_every: int | None = None,
    stop_at: str = "never",
    halving: tuple[int, int] | None = None,
    seeds_at_once: int | None = None,
    env_kwargs: dict[str, int | float | bool | str] = {},  # noqa: B006, never written to
    env_params: dict[str, float] = {},  # noqa: B006
) -> None:
    """Train many settings with several seeds each, together; any other setting is a flag.

    Args:
        env: a gymnax id, for example CartPole-v1.
        settings: those that all trials have.
        vary: what to try, for example learning_rate=1e-3,1e-2 algorithm=dqn,c51 for every
            combination, or learning_rate=log_uniform(1e-4,1e-2) with --num-trials.
        space: JSON file with the same: values by setting, or {"log_uniform": [1e-4, 1e-2]}.
        num_trials: trials drawn at random; by default every combination is one.
        algorithm: its name; `jaxrl-cb algorithms` lists them.
        run_dir: folder to write to; by default one under runs/ with the time in its name.
        resume: "auto" goes on with the sweep in --run-dir or starts anew; "must" only goes on.
        checkpoint_every: epochs from one checkpoint to the next.
        stop_at: "never"; "threshold" or a number stops a seed there, confirmed on 100 fresh
            episodes.
        halving: epochs to the first decision and a factor, for example 2 3: of all trials the best
            third goes on after 2 epochs, a third of those after 6, and so on.
        seeds_at_once: train in waves of so many seeds, where all together need more memory than
            there is; without --vary, many seeds of one setting.
        env_kwargs: parameters or constructor arguments of the environment.
        env_params: parameters of it that are fractions, kept in the state; --vary takes
            env_params.gravity=9.8,12.
    """
    from jaxrl_cb.files import parse_json, read_text, reading
    from jaxrl_cb.space import parse_space, space_from_json

    varied = parse_space(vary)
    if space:
        with reading(space):
            varied = space_from_json(parse_json(read_text(space))) | varied
    if not varied and seeds_at_once is None:
        raise ConfigError("sweep needs something to try: --vary learning_rate=1e-3,1e-2 or --space")
    named = settings | given(env_kwargs=env_kwargs, env_params=env_params)
    run_dir = chosen_folder(run_dir, resume, f"sweep__{env}__{algorithm}")
    options = {"num_trials": num_trials, "seeds_at_once": seeds_at_once, "resume": resume}
    command = {"stop_at": stop_at, "halving": halving, "checkpoint_every": checkpoint_every}
    _sweep(env, varied, algorithm, run_dir, command, options | named)


def resume_sweep(run_dir: Path, max_epochs: int | None, checkpoint_every: int | None) -> None:
    """Goes on with a sweep that was begun on the command line."""
    from jaxrl_cb.files import reading
    from jaxrl_cb.space import space_from_json
    from jaxrl_cb.sweep_folder import PLAN, read_plan

    plan = read_plan(run_dir)
    with reading(run_dir / PLAN):
        env, algorithm, space = plan["env"], plan["algorithm"], space_from_json(plan["space"])
        names = ("num_trials", "num_seeds", "seed", "seeds_at_once")
        options = dict(plan["shared"]) | {name: plan[name] for name in names}
    command = command_of(run_dir, "sweep", "sweep", env)
    command |= {} if checkpoint_every is None else {"checkpoint_every": checkpoint_every}
    options |= {} if max_epochs is None else {"max_epochs": max_epochs}
    _sweep(env, space, algorithm, run_dir, command, options | {"resume": "must"})


def _sweep(
    env: str,
    space: dict[str, Any],
    algorithm: str,
    run_dir: Path,
    command: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Runs a sweep or goes on with it.

    Args:
        env: its id.
        space: what is tried.
        algorithm: its name.
        run_dir: the folder.
        command: what the command line adds to its plan: stop_at, halving and checkpoint_every.
        options: of `jaxrl_cb.sweep`, and settings.
    """
    from jaxrl_cb.display import sweep_table
    from jaxrl_cb.files import reading
    from jaxrl_cb.machine import prepare
    from jaxrl_cb.run_files import replace
    from jaxrl_cb.sweeps import sweep
    from jaxrl_cb.trainer import EpochTrainCallbackSuccessiveHalving

    prepare(1_000)  # there is more than one seed to run; their number is checked later
    with reading(run_dir / COMMAND):
        stop_at, halving, every = (
            command[name] for name in ("stop_at", "halving", "checkpoint_every")
        )
    callbacks = stop_callbacks(stop_at, env, options.get("env_kwargs"))
    if halving:
        callbacks.epoch_train_callback = EpochTrainCallbackSuccessiveHalving(*halving)

    def on_start(_: Any) -> None:
        replace(run_dir / COMMAND, lambda path: path.write_text(jsonlib.dumps(command) + "\n"))

    named: Any = {"algorithm": algorithm, "checkpoint_every": every, "on_start": on_start}
    result = sweep(env, space, callbacks=callbacks, run_dir=run_dir, **named, **options)
    sweep_table(result, run_dir)
