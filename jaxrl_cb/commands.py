"""What the subcommands of ``jaxrl-cb`` do; their signatures are its flags."""

import json as jsonlib
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

from jaxrl_cb.checks import check_int
from jaxrl_cb.errors import CheckpointNotFoundError, ConfigError

Output = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]


def train(
    env: Positional[str],
    settings: dict[str, Any],
    algorithm: str | None = None,
    run_dir: Path | None = None,
    resume: Literal["never", "auto", "must"] = "never",
    checkpoint_every: int | None = None,
    stop_at: str = "threshold",
    config: Path | None = None,
    warm_start: Path | None = None,
    env_kwargs: dict[str, int | float | bool | str] = {},  # noqa: B006, never written to
    env_params: dict[str, float] = {},  # noqa: B006
) -> None:
    """Train a policy; any setting can be given as a flag.

    Settings that are not given are those of the environment's preset, where it has one, or follow
    the number of environments: `jaxrl-cb train ENV --help` shows them.

    Args:
        env: a gymnax id, for example CartPole-v1.
        settings: those that were given.
        algorithm: its name, dqn by default; `jaxrl-cb algorithms` lists them.
        run_dir: folder to write to; by default one under runs/ with the time in its name.
        resume: "never" wants a new or an empty folder; "auto" goes on from the newest good
            checkpoint of --run-dir or starts anew; "must" only goes on.
        checkpoint_every: epochs from one checkpoint to the next; by default one is written when 10
            seconds have passed since the last.
        stop_at: "threshold" stops at the environment's own (if it has one), confirmed on 100 fresh
            episodes; a number at that return; "never" uses up the budget.
        config: config.json of another run, whose algorithm and settings are taken; flags override
            them. With another algorithm its own settings are left out.
        warm_start: folder of a run whose best policy training begins with.
        env_kwargs: parameters or constructor arguments of the environment, for example
            max_steps_in_episode 200.
        env_params: parameters of it that are fractions, kept in the state.
    """
    from jaxrl_cb.config import common_settings
    from jaxrl_cb.run_folder import read_settings

    before, named = read_settings(config) if config else ("dqn", {})
    algorithm = algorithm or before
    if algorithm != before:
        named = common_settings(named, before, algorithm)
    named |= settings | given(env_kwargs=env_kwargs, env_params=env_params)
    run_dir = chosen_folder(run_dir, resume, f"{env}__{algorithm}__{named.get('seed', 0)}")
    options = {"resume": resume, "checkpoint_every": checkpoint_every, "warm_start": warm_start}
    _train(env, algorithm, run_dir, stop_at, options | named)


def resume(
    run_dir: Positional[Path], max_epochs: int | None = None, checkpoint_every: int | None = None
) -> None:
    """Go on with a run or a sweep that was interrupted or killed, or is to have more epochs.

    One that was killed before its first checkpoint begins anew.

    Args:
        run_dir: the folder of the run or the sweep.
        max_epochs: epochs in all; by default as many as the run was to have.
        checkpoint_every: epochs from one checkpoint to the next; by default as before.
    """
    from jaxrl_cb.config import load_config
    from jaxrl_cb.files import read_text, reading
    from jaxrl_cb.sweep_commands import resume_sweep
    from jaxrl_cb.sweep_folder import is_sweep
    from jaxrl_cb.trainer.checkpoint_store import CheckpointStore

    if is_sweep(run_dir):
        return resume_sweep(run_dir, max_epochs, checkpoint_every)
    file = run_dir / "config.json"
    if not file.is_file():
        raise CheckpointNotFoundError(f"{str(run_dir)!r} has no run to resume (no config.json)")
    with reading(file):
        text = read_text(file)
    env, algorithm, named = load_config(text, str(file))
    before = command_of(run_dir, "run", "train", env)
    with reading(run_dir / COMMAND):
        stop_at, every = str(before["stop_at"]), before["checkpoint_every"]
    named |= {} if max_epochs is None else {"max_epochs": max_epochs}
    every = every if checkpoint_every is None else checkpoint_every
    is_saved = CheckpointStore(run_dir / "checkpoints").steps()
    options = {"resume": "must" if is_saved else "auto", "checkpoint_every": every, **named}
    return _train(str(env), algorithm, run_dir, stop_at, options)


def command_of(run_dir: Path, what: str, function: str, env: str | None) -> dict[str, Any]:
    """What the command line added to the settings of a run or a sweep."""
    from jaxrl_cb.files import parse_json, read_text, reading

    file = run_dir / COMMAND
    if env is None or not file.is_file():
        raise ConfigError(
            f"the {what} in {str(run_dir)!r} was begun in Python, with callbacks or an environment "
            f"that only that program has; there jaxrl_cb.{function}(..., resume='must') goes on "
            "with it"
        )
    with reading(file):
        return dict(parse_json(read_text(file)))


COMMAND = "command.json"
"""What the command line adds to a run's settings, for `resume`."""


def _train(env: str, algorithm: str, run_dir: Path, stop_at: str, options: dict[str, Any]) -> None:
    from jaxrl_cb.display import Display
    from jaxrl_cb.experiment import train
    from jaxrl_cb.machine import prepare
    from jaxrl_cb.run_files import replace

    num_seeds = options.get("num_seeds", 1)
    prepare(num_seeds if isinstance(num_seeds, int) else 1)  # what it should be is checked later
    callbacks = stop_callbacks(stop_at, env, options.get("env_kwargs"))
    command = {"stop_at": stop_at, "checkpoint_every": options["checkpoint_every"]}
    with Display() as display:

        def on_start(trainer: Any) -> None:
            replace(run_dir / COMMAND, lambda path: path.write_text(jsonlib.dumps(command) + "\n"))
            display.on_start(trainer)

        hooks: Any = {"on_epoch": display.on_epoch, "on_start": on_start}
        result = train(env, algorithm, callbacks=callbacks, run_dir=run_dir, **hooks, **options)
    display.summary(result, run_dir)
    if np.all(result.diverged):
        raise SystemExit(1)


def evaluate(
    run_dir: Positional[Path],
    episodes: int = 100,
    which: Literal["best", "last"] = "best",
    seed: int = 0,
    epsilon: float = 0.0,
    gymnasium: bool = False,
    json: bool = False,
) -> None:
    """Test the policy of a run on fresh episodes.

    Args:
        run_dir: the run folder.
        episodes: complete episodes.
        which: best or last.
        seed: seed of the episodes.
        epsilon: probability of a random action.
        gymnasium: play Gymnasium's own environment of the same name.
        json: print one JSON object.
    """
    from jaxrl_cb import experiment
    from jaxrl_cb.gymnasium_play import play_gymnasium

    env, environment, policy, first_seed = _load(run_dir, which)
    if not gymnasium:
        scores = experiment.evaluate(policy, environment, episodes, seed, epsilon)
        means, stds = (np.atleast_1d(score).tolist() for score in scores)
    elif environment != experiment.make(env):
        raise ConfigError(
            "--gymnasium: the run changed the environment by env_kwargs; leave --gymnasium out"
        )
    else:
        settings = {"episodes": episodes, "seed": seed, "epsilon": epsilon}
        returns = [play_gymnasium(policy[i], env, **settings) for i in range(policy.num_seeds)]
        means, stds = np.mean(returns, axis=1).tolist(), np.std(returns, axis=1).tolist()
    if json:
        row = {"env": env, "which": which, "episodes": episodes, "seed": seed}
        row["gymnasium"] = gymnasium
        print(jsonlib.dumps({**row, "mean": means, "std": stds}))
        return
    where = f"Gymnasium's {env}" if gymnasium else env
    for own, (mean, std) in enumerate(zip(means, stds, strict=True), first_seed):
        score = f"{mean:.2f} +- {std:.2f} over {episodes} episodes"
        print(f"{where}, seed {own}, {which} policy: {score}")


def plot(run_dirs: Positional[tuple[Path, ...]], output: Output = None) -> None:
    """Draw the learning curve of a run again, or compare several.

    Args:
        run_dirs: one run folder, or more.
        output: file to draw a comparison over seeds to; by default comparison.png, or of one run
            learning_curve.png in its folder, which shows each seed and epsilon.
    """
    from jaxrl_cb.plotting import plot_comparison, plot_run

    if not run_dirs:
        raise ConfigError("plot needs a run folder, for example one under runs/")
    if len(run_dirs) == 1 and output is None:
        print(plot_run(run_dirs[0]))
    else:
        print(plot_comparison(run_dirs, output or Path("comparison.png")))


def report(run_dirs: Positional[tuple[Path, ...]], output: Output = None) -> None:
    """Compare runs: statistics over seeds with intervals, plots, and one page of HTML with all.

    Args:
        run_dirs: one run folder, or more; of a sweep's folder, its best trials are shown.
        output: folder for report.html, scores.csv and the pictures; by default report.
    """
    from jaxrl_cb.report import write_report

    if not run_dirs:
        raise ConfigError("report needs a run folder, for example one under runs/")
    page, found = write_report(run_dirs, output or Path("report"))
    for env, comparison in found.items():
        print(f"{env}, last test of each seed, 95 % intervals")
        print(comparison)
    print(page)


def render(
    run_dir: Positional[Path],
    output: Output = None,
    which: Literal["best", "last"] = "best",
    index: int = 0,
    episodes: int = 1,
    seed: int = 0,
    fps: int = 30,
) -> None:
    """Write an animated GIF of a run's policy.

    Args:
        run_dir: the run folder.
        output: the file; by default policy.gif in the run folder.
        which: best or last.
        index: which of the run's seeds, from 0.
        episodes: complete episodes.
        seed: seed of the episodes.
        fps: frames per second.
    """
    from jaxrl_cb.rendering import render_gif
    from jaxrl_cb.run_folder import check_links

    _, environment, policy, _ = _load(run_dir, which)
    check_int("index", index, 0, policy.num_seeds - 1)
    if output is None:
        check_links(run_dir)
    path = output or run_dir / "policy.gif"
    settings = {"episodes": episodes, "seed": seed, "fps": fps}
    num_frames = render_gif(policy[index], environment, path, **settings)
    print(f"{path} ({num_frames} frames)")


def envs() -> None:
    """List the environments, what they are like, and which cannot be trained on."""
    from rich.console import Console
    from rich.table import Table

    from jaxrl_cb.envs import make
    from jaxrl_cb.envs.gymnax import catalog

    table = Table(show_lines=False)
    for column in (
        "id",
        "observation",
        "actions",
        "time limit",
        "threshold",
        "replay",
        "supported",
    ):
        justify: Any = "left" if column in ("id", "supported") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for entry in catalog():
        if not entry.space:
            table.add_row(entry.id, "", "", "", "", "", f"no: {entry.reason}")
            continue
        spec = make(entry.id).spec
        shape = " x ".join(map(str, spec.obs_shape)) or "1"
        threshold = "" if spec.reward_threshold is None else f"{spec.reward_threshold:g}"
        kept = "bits" if spec.is_binary else spec.obs_dtype
        facts = (shape, str(spec.num_actions), str(spec.time_limit), threshold, kept, "yes")
        table.add_row(entry.id, *facts)
    console = Console()
    console.width = max(console.width, 140)  # ids are whole, also in a pipe
    console.print(table)


def algorithms() -> None:
    """List the algorithms: what each is made of, its paper, its own settings, its defaults."""
    from rich.console import Console
    from rich.table import Table

    from jaxrl_cb.algorithms import VARIANTS
    from jaxrl_cb.config import ONLY_IN, settings_of

    table = Table(show_lines=False)
    columns = ("name", "made of", "paper", "settings of its own", "defaults that differ")
    for column in columns:
        table.add_column(column, no_wrap=column == "name")
    for name, variant in VARIANTS.items():
        defaults = ", ".join(f"{key} {value}" for key, value in variant.defaults.items())
        own = [*variant.settings, *sorted(ONLY_IN["online"] & settings_of(name))]
        table.add_row(name, axes(name), variant.paper, ", ".join(own), defaults)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)


def axes(algorithm: str) -> str:
    """What an algorithm is made of where nothing is set: data; network; what is learned."""
    from jaxrl_cb.algorithms import VARIANTS
    from jaxrl_cb.config import resolve

    variant, config = VARIANTS[algorithm], resolve(None, algorithm, {})
    data = ["rollouts", "Q(lambda)"]
    if variant.regime == "replay":
        sampling = "by priority" if config.replay.priority_alpha else "uniform"
        data = [f"replay, {sampling}", f"{config.replay.n_step}-step"]
    network = [name for name in ("dueling", "noisy") if getattr(config.network, name)]
    learned = [words for name, words in LEARNED.items() if name in variant.settings]
    learned += ["double"] if "double" in variant.settings and config.algorithm.double else []
    return "; ".join(", ".join(parts) for parts in (data, network, learned) if parts)


LEARNED = {
    "loss": "values",
    "num_atoms": "categorical",
    "num_quantiles": "quantiles",
    "num_fractions": "implicit quantiles",
    "munchausen_alpha": "Munchausen",
}
"""What an algorithm learns, by a setting that only those have."""


def _load(run_dir: Path, which: str) -> tuple[str, Any, Any, int]:
    """A run's environment id and environment, its policy, and its first seed."""
    from jaxrl_cb.envs import make
    from jaxrl_cb.run_folder import load_policy, read_config

    env, _, config = read_config(run_dir)
    if env is None:
        raise ConfigError(
            "the run's environment was an object, which the command line cannot make again; in "
            "Python there are jaxrl_cb.evaluate and jaxrl_cb.rendering.render_gif"
        )
    environment = make(env, config.env.env_kwargs | config.env.env_params)
    return env, environment, load_policy(run_dir, which), config.trainer.seed


def chosen_folder(run_dir: Path | None, resume: str, name: str) -> Path:
    """The folder that was given, or a new one under runs/ with the time in its name."""
    if run_dir is not None:
        return run_dir
    if resume != "never":
        raise ConfigError(f"--resume {resume} needs --run-dir, the folder to resume")
    return Path("runs") / f"{name}__{time.strftime('%Y%m%d-%H%M%S')}"


def given(**named: Any) -> dict[str, Any]:
    """Those that are not empty."""
    return {name: value for name, value in named.items() if value}


def stop_callbacks(stop_at: str, env: str, env_kwargs: Any) -> Any:
    """The callbacks that ``--stop-at`` stands for."""
    from jaxrl_cb.envs import make
    from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks

    if stop_at == "never":
        return TrainerCallbacks()
    threshold = None
    if stop_at != "threshold":
        try:
            threshold = float(stop_at)
        except ValueError as error:
            raise ConfigError(
                f"stop_at={stop_at!r} is neither 'threshold', 'never' nor a number"
            ) from error
    elif make(env, env_kwargs).spec.reward_threshold is None:
        return TrainerCallbacks()
    stop = EpochStopCallbackConfirmedRewardThreshold(threshold)
    return TrainerCallbacks(epoch_stop_callback=stop)
