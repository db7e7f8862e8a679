"""The command line ``jaxrl-cb``: train, evaluate, plot.

Exit codes: 0 done (also when the budget ends unsolved), 2 wrong input, 130 after Ctrl-C.
"""

import contextlib
import functools
import inspect
import io
import json as jsonlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import tyro
from tyro.conf import Positional

from jaxrl_cb import __version__
from jaxrl_cb.errors import ConfigError, JaxrlError


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments in (["--version"], ["-V"]):
            print(__version__)
        else:
            _parsed(arguments)()
    except KeyboardInterrupt:
        print("jaxrl-cb: interrupted", file=sys.stderr)
        sys.exit(130)
    except (JaxrlError, OSError) as error:
        print(f"jaxrl-cb: error: {error}", file=sys.stderr)
        sys.exit(2)


def train(
    env: Positional[str],
    settings: dict[str, Any],
    algorithm: str = "dqn",
    run_dir: Path | None = None,
    stop_at: str = "threshold",
    config: Path | None = None,
    env_kwargs: dict[str, int | float | bool | str] = {},  # noqa: B006, never written to
) -> None:
    """Train a policy; any setting can be given as a flag.

    Args:
        env: a gymnax id, for example CartPole-v1.
        settings: those that were given.
        algorithm: dqn.
        run_dir: folder to write to; by default one under runs/ with the time in its name.
        stop_at: "threshold" stops at the environment's own (if it has one), confirmed on 100 fresh
            episodes; a number at that return; "never" uses up the budget.
        config: config.json of another run, whose settings are taken; flags override them.
        env_kwargs: parameters or constructor arguments of the environment, for example
            max_steps_in_episode 200.
    """
    from jaxrl_cb.config import load_config
    from jaxrl_cb.display import Display
    from jaxrl_cb.experiment import train

    named = load_config(config.read_text())[2] if config else {}
    named |= settings | ({"env_kwargs": env_kwargs} if env_kwargs else {})
    if run_dir is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        run_dir = Path("runs") / f"{env}__{algorithm}__{named.get('seed', 0)}__{stamp}"
    callbacks = _stop_callbacks(stop_at, env, named.get("env_kwargs"))
    try:
        with Display() as display:
            hooks: Any = {"on_epoch": display.on_epoch, "on_start": display.on_start}
            result = train(env, algorithm, callbacks=callbacks, run_dir=run_dir, **hooks, **named)
    except KeyboardInterrupt:
        print(f"jaxrl-cb: what was done is in {run_dir}", file=sys.stderr)
        raise
    display.summary(result, run_dir)


def evaluate(
    run_dir: Positional[Path],
    episodes: int = 100,
    which: Literal["best", "last"] = "best",
    seed: int = 0,
    epsilon: float = 0.0,
    json: bool = False,
) -> None:
    """Test the policy of a run on fresh episodes.

    Args:
        run_dir: the run folder.
        episodes: complete episodes.
        which: best or last.
        seed: seed of the episodes.
        epsilon: probability of a random action.
        json: print one JSON object.
    """
    from jaxrl_cb import experiment
    from jaxrl_cb.envs import make
    from jaxrl_cb.run_folder import load_policy, read_config

    env, _, config = read_config(run_dir)
    if env is None:
        raise ConfigError("the run's environment was an object; use jaxrl_cb.evaluate in Python")
    policy, environment = load_policy(run_dir, which), make(env, config.env.env_kwargs)
    scores = experiment.evaluate(policy, environment, episodes, seed, epsilon)
    means, stds = (np.atleast_1d(score).tolist() for score in scores)
    if json:
        row = {"env": env, "which": which, "episodes": episodes, "seed": seed}
        print(jsonlib.dumps({**row, "mean": means, "std": stds}))
        return
    for own, (mean, std) in enumerate(zip(means, stds, strict=True), config.trainer.seed):
        scores = f"{mean:.2f} +- {std:.2f} over {episodes} episodes"
        print(f"{env}, seed {own}, {which} policy: {scores}")


def plot(run_dir: Positional[Path]) -> None:
    """Draw the learning curve of a run again.

    Args:
        run_dir: the run folder.
    """
    from jaxrl_cb.plotting import plot_run

    print(plot_run(run_dir))


def _stop_callbacks(stop_at: str, env: str, env_kwargs: Any) -> Any:
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


def _parsed(arguments: list[str]) -> Callable[[], None]:
    """The command that the arguments name, ready to be called.

    Raises:
        ConfigError: they are wrong.
    """
    settings = _settings(arguments) if arguments[:1] == ["train"] else TypedDict("Settings", {})
    commands = {f.__name__: _deferred(f, settings) for f in (train, evaluate, plot)}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                commands,
                args=arguments,
                prog="jaxrl-cb",
                description="Callback-driven Q-learning on JAX.",
            )
    except SystemExit as stop:
        if stop.code:
            raise ConfigError(_one_line(errors.getvalue())) from None
        raise


def _deferred(function: Callable[..., None], settings: Any) -> Callable[..., Callable[[], None]]:
    """A function of the same signature, with these settings, that gives the call it would make."""

    def command(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    parameters = inspect.signature(function).parameters
    kinds = {name: parameter.annotation for name, parameter in parameters.items()}
    kinds |= {"settings": settings} if "settings" in kinds else {}
    command.__doc__, command.__annotations__ = function.__doc__, kinds
    vars(command)["__signature__"] = inspect.Signature(
        [parameter.replace(annotation=kinds[name]) for name, parameter in parameters.items()]
    )
    return command


def _settings(arguments: list[str]) -> Any:
    """The type of a dict that holds what is given of all settings; help shows preset values."""
    from jaxrl_cb.config import FIELDS, GROUPS, resolve
    from jaxrl_cb.presets import PRESETS

    env = next((a for a in arguments if any(a == known for known, _ in PRESETS)), None)
    defaults = resolve(env, "dqn", {}).flat()
    kinds: dict[str, Any] = {}
    for name, (group, field) in FIELDS.items():
        hint = f"(default: {defaults[name]})"
        text = _documented(GROUPS[group], name)
        argument = tyro.conf.arg(help=text, help_behavior_hint=hint)
        kinds[name] = Annotated[field.type, argument]
    del kinds["env_kwargs"]  # a dict cannot be left out of a TypedDict: train has it itself
    typed_dict: Any = TypedDict
    return Annotated[typed_dict("Settings", kinds, total=False), tyro.conf.arg(name="")]


def _documented(config: type, name: str) -> str:
    """A setting's line in its dataclass's docstring."""
    text = re.search(
        rf"^        {name}: (.*?)(?=^        \w+: |\Z)", config.__doc__ or "", re.M | re.S
    )
    return re.sub(r"\s+", " ", text.group(1)).strip() if text else ""


def _one_line(text: str) -> str:
    """The first paragraph of tyro's error box on one line, and the flag that it suggests."""
    lines = [line.strip("│ ").strip() for line in text.splitlines() if line[:1] not in "╭╰"]
    first, _, rest = "\n".join(lines).partition("────")
    near = re.search(r"Perhaps you meant:\s+(--[\w-]+)", rest)
    words = " ".join(first.split()) or "wrong arguments"
    return words + (f" (did you mean {near.group(1)}?)" if near else "")
