"""The command line ``jaxrl-cb``: train, evaluate, plot.

Exit codes: 0 done (also when the budget ends unsolved), 2 wrong input, 130 after Ctrl-C.
"""

import contextlib
import dataclasses
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union, cast

import tyro

from jaxrl_cb import __version__
from jaxrl_cb.errors import ConfigError, JaxrlError, did_you_mean


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments in (["--version"], ["-V"]):
            print(__version__)
            return
        _parse(arguments)
    except KeyboardInterrupt:
        print("jaxrl-cb: interrupted", file=sys.stderr)
        sys.exit(130)
    except (JaxrlError, OSError) as error:
        print(f"jaxrl-cb: error: {error}", file=sys.stderr)
        sys.exit(2)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Test the policy of a run on fresh episodes.

    Attributes:
        run_dir: the run folder.
        episodes: complete episodes.
        which: best or last.
        seed: seed of the episodes.
        epsilon: probability of a random action.
        json: print one JSON object.
    """

    run_dir: tyro.conf.Positional[Path]
    episodes: int = 100
    which: str = "best"
    seed: int = 0
    epsilon: float = 0.0
    json: bool = False

    def __call__(self) -> None:
        """Prints mean and standard deviation of the returns."""
        from jaxrl_cb.envs import make
        from jaxrl_cb.run_folder import load_policy, read_config
        from jaxrl_cb.trainer.evaluate import play

        env, _, config = read_config(self.run_dir)
        policy = load_policy(self.run_dir, self.which)
        if env is None:
            raise ConfigError(
                "the run's environment was an object; use jaxrl_cb.evaluate in Python"
            )
        environment = make(env, config.env.env_kwargs)
        returns = play(
            policy, environment, episodes=self.episodes, seed=self.seed, epsilon=self.epsilon
        )
        mean, std = returns.mean(axis=1, dtype=float), returns.std(axis=1, dtype=float)
        if self.json:
            row = {"env": env, "which": self.which, "episodes": self.episodes, "seed": self.seed}
            print(json.dumps({**row, "mean": mean.tolist(), "std": std.tolist()}))
            return
        for index in range(len(mean)):
            seed = config.trainer.seed + index
            print(
                f"{env}, seed {seed}, {self.which} policy: {mean[index]:.2f} +- {std[index]:.2f} "
                f"over {self.episodes} episodes"
            )


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the learning curve of a run again.

    Attributes:
        run_dir: the run folder.
    """

    run_dir: tyro.conf.Positional[Path]

    def __call__(self) -> None:
        """Prints the picture's path."""
        from jaxrl_cb.plotting import plot_run

        print(plot_run(self.run_dir))


@dataclasses.dataclass(frozen=True)
class TrainBase:
    """Train a policy; any setting can be given as a flag.

    Attributes:
        env: a gymnax id, for example CartPole-v1.
        algorithm: dqn.
        run_dir: folder to write to; by default one under runs/ with the time in its name.
        stop_at: "threshold" stops at the environment's own (if it has one), confirmed on 100 fresh
            episodes; a number at that return; "never" uses up the budget.
        config: config.json of another run, whose settings are taken; flags override them.
    """

    env: tyro.conf.Positional[str]
    algorithm: str = "dqn"
    run_dir: Path | None = None
    stop_at: str = "threshold"
    config: Path | None = None

    def train(self, flags: dict[str, Any]) -> None:
        """Trains with a live display, and says how it ended."""
        from jaxrl_cb.config import load_config
        from jaxrl_cb.display import Display
        from jaxrl_cb.experiment import train

        named = load_config(self.config.read_text())[2] if self.config else {}
        named.update(flags)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        name = f"{self.env}__{self.algorithm}__{named.get('seed', 0)}__{stamp}"
        run_dir = self.run_dir or Path("runs") / name
        callbacks = _stop_callbacks(self.stop_at, self.env, named.get("env_kwargs"))
        try:
            with Display() as display:
                result = train(
                    *(self.env, self.algorithm),
                    callbacks=callbacks,
                    run_dir=run_dir,
                    on_epoch=display.on_epoch,
                    on_start=display.on_start,
                    **named,
                )
        except KeyboardInterrupt:
            print(f"jaxrl-cb: what was done is in {run_dir}", file=sys.stderr)
            raise
        display.summary(result, run_dir)


def _stop_callbacks(stop_at: str, env: str, env_kwargs: Any) -> Any:
    from jaxrl_cb.envs import make
    from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks

    if stop_at == "never":
        return TrainerCallbacks()
    if stop_at == "threshold":
        if make(env, env_kwargs).spec.reward_threshold is None:
            return TrainerCallbacks()
        stop = EpochStopCallbackConfirmedRewardThreshold()
    else:
        try:
            stop = EpochStopCallbackConfirmedRewardThreshold(float(stop_at))
        except ValueError as error:
            raise ConfigError(
                f"stop_at={stop_at!r} is neither 'threshold', 'never' nor a number"
            ) from error
    return TrainerCallbacks(epoch_stop_callback=stop)


def _parse(arguments: list[str]) -> None:
    """Runs the subcommand that the arguments name."""
    training = arguments[:1] == ["train"]
    command, names = _train_command(arguments) if training else (TrainBase, [])
    if training:
        _check_flags(arguments, [*names, *(f.name for f in dataclasses.fields(TrainBase))])
    commands = Union[  # noqa: UP007
        Annotated[
            command,
            tyro.conf.subcommand(
                "train", description="Train a policy; any setting can be given as a flag."
            ),
        ],
        Annotated[Evaluate, tyro.conf.subcommand("evaluate")],
        Annotated[Plot, tyro.conf.subcommand("plot")],
    ]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            chosen: Any = tyro.cli(
                cast(Any, commands),
                args=arguments,
                prog="jaxrl-cb",
                description="Callback-driven Q-learning on JAX.",
            )
    except SystemExit as stop:
        if stop.code:
            raise ConfigError(_one_line(errors.getvalue())) from None
        raise
    if isinstance(chosen, TrainBase):
        given = _given(arguments)
        chosen.train({name: getattr(chosen, name) for name in names if name in given})
    else:
        chosen()


def _train_command(arguments: list[str]) -> tuple[type, list[str]]:
    """The train command with a flag for each setting, its default that of the preset."""
    from jaxrl_cb.config import FIELDS, GROUPS, resolve
    from jaxrl_cb.presets import PRESETS

    env = next((a for a in arguments if any(a == known for known, _ in PRESETS)), None)
    defaults = resolve(env, "dqn", {}).flat()
    fields = []
    for name, (group, field) in FIELDS.items():
        help_text = _documented(GROUPS[group], name)
        kind = Annotated[field.type, tyro.conf.arg(help=help_text)]
        default = defaults[name]
        factory = dataclasses.field(default_factory=lambda value=default: value)
        fields.append((name, kind, factory))
    command = dataclasses.make_dataclass("Train", fields, bases=(TrainBase,), frozen=True)
    return command, list(FIELDS)


def _documented(config: type, name: str) -> str:
    """A setting's line in its dataclass's docstring."""
    text = re.search(
        rf"^        {name}: (.*?)(?=^        \w+: |\Z)", config.__doc__ or "", re.M | re.S
    )
    return re.sub(r"\s+", " ", text.group(1)).strip() if text else ""


def _given(arguments: list[str]) -> set[str]:
    """Names of the flags that stand on the command line."""
    flags = {a[2:].split("=")[0].replace("-", "_") for a in arguments if a.startswith("--")}
    return flags | {flag.removeprefix("no_") for flag in flags}


def _check_flags(arguments: list[str], known: list[str]) -> None:
    for argument in arguments:
        if not argument.startswith("--") or argument == "--help":
            continue
        name = argument[2:].split("=")[0].replace("-", "_")
        if name not in known and name.removeprefix("no_") not in known:
            near = did_you_mean(name, known).replace("_", "-").replace("'", "")
            near = re.sub(r"mean ", "mean --", near)
            raise ConfigError(f"{argument.split('=')[0]} is not a flag of train{near}")


def _one_line(text: str) -> str:
    """The first paragraph of tyro's error box on one line."""
    lines = [line.strip("│ ").strip() for line in text.splitlines()]
    lines = [line for line in lines if not re.fullmatch(r"[╭╮╰╯].*", line)]
    first = []
    for line in lines:
        if re.fullmatch(r"─+", line):
            break
        first.append(line)
    return re.sub(r"\s+", " ", " ".join(first)).strip() or "wrong arguments"
