"""Wrong input is one error of ours, in one line, before anything is compiled.

The rows are in `bad_inputs.py`. ``python tests/test_bad_inputs.py --write`` writes what they raise
to docs/bad_inputs.md, and a test compares.
"""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import sys
import tempfile
import tracemalloc
import types
import warnings
from fractions import Fraction
from pathlib import Path

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bad_inputs import COMMANDS, OWN, RUNNING, SECTIONS

import jaxrl_cb
from jaxrl_cb import cli, envs, plotting, trainer
from jaxrl_cb.algorithms import DQN, PQN
from jaxrl_cb.config import resolve
from jaxrl_cb.envs.gymnax import catalog
from jaxrl_cb.errors import CheckpointWarning, JaxrlError
from jaxrl_cb.learners import OnlineLearner, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.rendering import render_gif
from jaxrl_cb.run_files import locked
from jaxrl_cb.run_folder import read_metrics
from jaxrl_cb.trainer import TrainerCallbacks, TrainerParams, manifest

DOCS = Path(__file__).parents[1] / "docs" / "bad_inputs.md"
SMALL = {
    **{"num_envs": 4, "batch_size": 16, "buffer_size": 400, "start_timesteps": 40},
    **{"epoch_num_steps": 80, "max_epochs": 1, "num_test_episodes": 3, "hidden_sizes": (16,)},
    **{"samples_per_insert": 8, "verbose": False},
}
CLASSIC = gymnax.environments.classic_control.cartpole.CartPole
BEST = "policy_best.safetensors"


def train(env="CartPole-v1", *arguments, **settings):
    """`jaxrl_cb.train` with small sizes, in case that something wrong is taken."""
    sizes = dict(SMALL)
    for name in ("batch_size", "start_timesteps"):  # they follow from what a row names
        if {"buffer_size", "num_envs", "n_step"} & set(settings):
            sizes.pop(name)
    return jaxrl_cb.train(env, *arguments, **(sizes | settings))


def sweep(space, *arguments, **settings):
    """`jaxrl_cb.sweep` with small sizes, in case that something wrong is taken."""
    return jaxrl_cb.sweep("CartPole-v1", space, *arguments, **(SMALL | settings))


class NoReset:
    def step(self, *_):
        raise NotImplementedError


class FiveValues:
    default_params = None

    def action_space(self, params):
        return types.SimpleNamespace(n=2)

    def reset(self, key, params):
        return jnp.zeros(2), jnp.int32(0)

    def step(self, key, state, action, params):
        return jnp.zeros(2), state, 1.0, False, {}


class SixValues(FiveValues):
    def step(self, key, state, action, params):
        return jnp.zeros(2), state, 1.0, False, False, {}


def toy(**changes):
    """An environment of two functions whose episodes last 3 steps."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(2)

    def step(key, state, action):
        return state + 1, jnp.zeros(2), 1.0, False, state >= 2

    made = {"reset": reset, "step": step, "num_actions": 2, "time_limit": 3, **changes}
    return envs.functional(made.pop("reset"), made.pop("step"), **made)


class Sets(trainer.EpochTrainCallback):
    """Calls setters of the policy."""

    def __init__(self, values):
        self.values = values

    def callback(self, epoch, env_step, context):
        for name, value in self.values.items():
            if name == "state":
                context.state = value
            elif name == "eps_schedule":
                context.policy.set_eps_schedule(*value)
            else:
                getattr(context.policy, f"set_{name}")(value)


class Does(trainer.EpochTrainCallback):
    def __init__(self, function):
        self.function = function

    def callback(self, epoch, env_step, context):
        self.function(context)


class Answers(trainer.EpochStopCallback):
    def __init__(self, answer):
        self.answer = answer

    def should_stop(self, mean_rewards, context):
        return self.answer


class Asks(trainer.EpochStopCallback):
    def __init__(self, function):
        self.function = function

    def should_stop(self, mean_rewards, context):
        return self.function()


class Keeps:
    """Keeps the state of one epoch and reads it in the next."""

    def __init__(self):
        self.state = None

    def __call__(self, context):
        if self.state:
            np.asarray(self.state.num_updates)
        self.state = context.state


def runs_again(function):
    """A callback does something with the trainer that calls it."""
    trainers = []
    callbacks = TrainerCallbacks(Does(lambda context: function(trainers[0])))
    return train(max_epochs=1, callbacks=callbacks, on_start=trainers.append)


def trains_again(run_dir):
    """A callback trains in the folder of its own run."""
    inner = Does(lambda context: train(run_dir=run_dir, resume="auto"))
    return train(run_dir=run_dir, callbacks=TrainerCallbacks(inner))


def emptied(path):
    shutil.rmtree(path)
    path.mkdir()


def halved(path):
    os.truncate(path, path.stat().st_size // 2)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_later(path):
    """Seals a manifest as a later version would."""
    content = json.loads(path.read_text())
    content["format"] = manifest.FORMAT + 1
    content["sha256"] = manifest._seal(content["format"], content["body"])
    path.write_text(json.dumps(content))


class World:
    """A folder with a run in it, and the names that rows may use."""

    def __init__(self, folder):
        self.folder = folder
        self.run = folder / "run"
        self.num_copies = 0
        self.done = {}
        (folder / "file").write_text("something")
        catalog()  # making some environments compiles a little
        envs.make("Acrobot-v1")
        result = train(run_dir=self.run, checkpoint_every=9)  # whatever the time: its end alone
        named = {name: value for name, value in SMALL.items() if name != "verbose"}
        settings = resolve("CartPole-v1", "dqn", named)
        learner = settings.build_learner(envs.make("CartPole-v1"))  # the program of `train`
        self.names = {
            **{"train": train, "toy": toy, "make": envs.make, "tmp": folder, "run": self.run},
            **{"result": result, "policy": result.policy, "best": BEST, "learner": learner},
            **{"two_seeds": train(num_seeds=2, max_epochs=0).policy, "key": jax.random.key(0)},
            **{"params": TrainerParams(epoch_num_steps=80), "TrainerParams": TrainerParams},
            **{"nan": float("nan"), "inf": float("inf"), "np": np, "jnp": jnp, "zeros": jnp.zeros},
            **{"CartPole": CLASSIC, "NoReset": NoReset, "FiveValues": FiveValues},
            **{"SixValues": SixValues, "gymnasium": gymnasium, "Fraction": Fraction},
            **{
                "with_link": self.with_link,
                "resumed": self.resumed,
                "resumed_in_use": self.resumed_in_use,
            },
            **{"run_with": self.run_with, "settings_of_a_run": self.settings, "new": self.new},
            **{"on_train": lambda x: TrainerCallbacks(epoch_train_callback=x)},
            **{"on_test": lambda x: TrainerCallbacks(epoch_test_callback=x)},
            **{"stop": lambda x: TrainerCallbacks(epoch_stop_callback=x)},
            "sets": lambda **values: TrainerCallbacks(epoch_train_callback=Sets(values)),
            "does": lambda function: TrainerCallbacks(epoch_train_callback=Does(function)),
            "asks": lambda function: TrainerCallbacks(epoch_stop_callback=Asks(function)),
            **{"Keeps": Keeps, "runs_again": runs_again, "trains_again": trains_again},
            **{"emptied": emptied, "halved": halved, "flipped": flipped, "of_later": of_later},
            "answers": lambda answer: TrainerCallbacks(epoch_stop_callback=Answers(answer)),
            **{"SetEps": trainer.EpochTrainCallbackDQNSetEps},
            **{"LinearDecay": trainer.EpochTrainCallbackDQNEpsLinearDecay},
            **{"ExponentialDecay": trainer.EpochTrainCallbackDQNEpsExponentialDecay},
            **{"Piecewise": trainer.EpochTrainCallbackDQNEpsPiecewise},
            **{"LearningRateDecay": trainer.EpochTrainCallbackLearningRateDecay},
            **{"Stop": trainer.EpochStopCallbackRewardThreshold},
            **{"ConfirmedStop": trainer.EpochStopCallbackConfirmedRewardThreshold},
            **{"NoImprovement": trainer.EpochStopCallbackNoImprovement},
            **{"WallTime": trainer.EpochStopCallbackWallTime, "MemoryLogger": trainer.MemoryLogger},
            **{"Trainer": trainer.Trainer, "TrainerCallbacks": TrainerCallbacks},
            **{"ReplayLearner": ReplayLearner, "DQN": DQN, "MLP": MLP, "render": render_gif},
            **{"OnlineLearner": OnlineLearner, "PQN": PQN},
            "train_pqn": functools.partial(jaxrl_cb.train, "CartPole-v1", "pqn", verbose=False),
            **{"load_policy": jaxrl_cb.load_policy, "evaluate": jaxrl_cb.evaluate},
            **{"sweep": sweep, "compare": jaxrl_cb.compare, "uniform": jaxrl_cb.uniform},
            **{"log_uniform": jaxrl_cb.log_uniform, "trainer": trainer},
            **{"check_environment": jaxrl_cb.check_environment, "plot_run": plotting.plot_run},
            "plot_comparison": plotting.plot_comparison,
            **{name: getattr(envs, name) for name in ("sticky_actions", "action_repeat")},
            **{name: getattr(envs, name) for name in ("time_limit", "frame_stack")},
            **{name: getattr(envs, name) for name in ("scale_reward", "clip_reward")},
            "normalize_reward": envs.normalize_reward,
        }
        self.names["circular"] = {}
        self.names["circular"]["itself"] = self.names["circular"]
        whole = '{"env": "CartPole-v1", "algorithm": "dqn", "settings": %s}'
        files = {
            **{"empty": "", "binary": b"\xff", "list": "[]", "deep": "[" * 10**5},
            **{"twice": whole % '{"seed": 1, "seed": 2}', "unknown": whole % '{"lr": 1}'},
            **{"argument": whole % '{"run_dir": "x"}', "text": whole % '{"num_envs": "4"}'},
            "python": "a: !!python/object/apply:os.getcwd []",
        }
        for name, content in files.items():
            self.write(folder / name, content)
        self.places = {name: str(folder / name) for name in [*files, "run", "file"]}
        self.places |= {"nul": "a\0b", "long": "x" * 300}
        self.places["odd_command"] = str(self.run_with("command.json", "{}"))
        self.places["bad_command"] = str(self.run_with("command.json", "{"))
        self.places["linked"] = str(self.with_link())
        self.places["damaged"] = str(self.run_with(BEST, b"x"))

    def new(self):
        """A path at which there is nothing."""
        self.num_copies += 1
        return self.folder / f"copy{self.num_copies}"

    def write(self, path, content):
        if content is None and path.is_dir():
            shutil.rmtree(path)
        elif content is None:
            path.unlink()
        elif callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def run_with(self, name, content):
        """A copy of the run with another content of a file, without it (None), or changed."""
        copy = self.new()
        shutil.copytree(self.run, copy)
        self.write(copy / name, content)
        return copy

    def with_link(self):
        """A copy of the run with a link that leads out of it."""
        copy = self.run_with("policy.gif", "")
        (copy / "policy.gif").unlink()
        (copy / "policy.gif").symlink_to(self.folder / "file")
        return copy

    def resumed(self, name=".lock", content="", env="CartPole-v1", **settings):
        """Goes on with a copy of the run in which a file or folder was changed."""
        run_dir = self.run_with(name, content)
        with warnings.catch_warnings():  # of each checkpoint that is not good
            warnings.simplefilter("ignore", CheckpointWarning)
            return train(env, run_dir=run_dir, resume="must", **settings)

    def resumed_in_use(self):
        """Goes on with a run that another process has."""
        run_dir = self.run_with(".lock", "")
        descriptor = locked(run_dir / ".lock")
        try:
            return train(run_dir=run_dir, resume="must")
        finally:
            os.close(descriptor)

    def settings(self, text):
        """A copy of the run with these settings, as JSON."""
        whole = '{"env": "CartPole-v1", "algorithm": "dqn", "settings": %s}'
        return self.run_with("config.json", whole % text)

    def do(self, code):
        """What a row raises; it is done once."""
        if code not in self.done:
            try:
                self.done[code] = eval(code, dict(self.names))  # noqa: S307
            except Exception as error:
                self.done[code] = error
        return self.done[code]

    def command(self, line):
        """The exit code of a command, and its standard error."""
        errors, code = io.StringIO(), None
        arguments = [word.format(**self.places) for word in line.split()]
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main(arguments)
            except SystemExit as stop:
                code = stop.code
        return code, errors.getvalue()

    def plain(self, text):
        """A message without what differs from run to run and from machine to machine."""
        text = text.replace(str(self.folder), "tmp")
        text = re.sub(r"copy\d+", "copy", re.sub(r" at 0x[0-9a-fA-F]+", "", text))
        return text.replace("\0", "\\0")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with contextlib.chdir(folder):
        yield World(folder)


def said(error):
    """The message of an error, and the notes of one that is not ours."""
    return "; ".join([str(error), *([] if isinstance(error, JaxrlError) else error.__notes__)])


def has_words(message, words):
    return re.search(".*".join(map(re.escape, words.split("..."))), message)


ROWS = [row for rows in SECTIONS.values() for row in rows]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code[:60])
def test_wrong_input_is_one_error_in_one_line(row, world, compiles):
    before = sorted(world.folder.iterdir())
    compiles()
    error = world.do(row.code)
    assert type(error) is row.error, error
    assert isinstance(error, JaxrlError) != (row in OWN)
    message = said(error)
    assert has_words(message, row.words), message
    assert message.count("\n") == 0
    assert len(message) < 500
    assert "canary" not in message
    if row not in [*RUNNING, *OWN]:
        assert compiles() == 0
        new = set(world.folder.iterdir()) - set(before)
        assert not [path for path in new if not path.name.startswith("copy")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.line)
def test_a_wrong_command_is_one_line_and_exit_code_2(command, world, compiles):
    before = sorted(world.folder.iterdir())
    compiles()
    code, errors = world.command(command.line)
    assert code == 2, errors
    assert errors.startswith("jaxrl-cb: error: ")
    assert errors.count("\n") == 1
    assert has_words(errors, command.words), errors
    assert "canary" not in errors
    assert compiles() == 0
    assert sorted(world.folder.iterdir()) == before


def table(world):
    """The text of docs/bad_inputs.md."""
    lines = [
        *("# What wrong input says", ""),
        "Written by `python tests/test_bad_inputs.py --write`, which does all of this. `train` is",
        "`jaxrl_cb.train` with CartPole-v1 and small sizes, `toy` makes an environment of two",
        "functions, `tmp` is a folder, `run` that of a run. Everything is said before anything is",
        "compiled, except while a run goes on. Words of other libraries are left out.",
    ]
    for section, rows in SECTIONS.items():
        lines += ["", f"## {section}", "", "| input | error | message |", "|---|---|---|"]
        for row in rows:
            name, message = row.error.__name__, said(world.do(row.code))
            lines.append(_line(world, row.code, name, message, row))
    lines += [
        "",
        "## On the command line",
        "",
        "Exit code 2.",
        "",
        "| command | message |",
        "|---|---|",
    ]
    for command in COMMANDS:
        message = world.command(command.line)[1].removeprefix("jaxrl-cb: error: ").strip()
        lines.append(_line(world, f"jaxrl-cb {command.line}".strip(), None, message, command))
    return "\n".join(lines) + "\n"


def _line(world, code, name, message, row):
    message = f"... {row.words.replace('...', ' ... ')} ..." if row.outside else message
    cells = [f"`{code}`", *([name] if name else []), world.plain(message)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_documented_messages_are_those_of_now(world):
    assert DOCS.read_text() == table(world), "python tests/test_bad_inputs.py --write"


def test_an_unwritable_place_is_told_before_anything_is_compiled(world, monkeypatch, compiles):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        compiles()
        error = world.do("train(run_dir=new())")
    assert "cannot be written: Permission denied; choose another place" in str(error)
    assert compiles() == 0


READERS = {
    "config.json": "load_policy({})",
    "policy.json": "load_policy({})",
    "metrics.jsonl": "plot_run({})",
    "command.json": None,
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_beyond_all_measure_is_not_read_whole(world, name):
    folder = world.run_with(name, "{")
    os.truncate(folder / name, 2**28)
    tracemalloc.start()
    try:
        if READERS[name]:
            message = str(world.do(READERS[name].format(f"tmp / {folder.name!r}")))
        else:
            message = world.command(f"resume {folder}")[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer than 16,000,000 characters" in message
    assert peak < 2**27


def test_rows_are_read_however_many_there_are(world):
    row = json.dumps({"step_type": "train/env_step", "step": 1, "text": "x" * 10**6}) + "\n"
    folder = world.run_with("metrics.jsonl", row * 20)
    assert len(read_metrics(folder)) == 20


def test_more_steps_than_an_int32_holds_are_counted(world):
    long = TrainerParams(epoch_num_steps=80, max_epochs=50_000_000, num_test_episodes=3)
    assert long.total_env_steps == 4_000_000_000
    seen = []
    callbacks = TrainerCallbacks(
        [
            trainer.EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.0, 2**33),
            lambda epoch, env_step, context: seen.append((env_step, context.policy.eps_training)),
        ]
    )
    run = trainer.Trainer(world.names["learner"], long, callbacks)
    run.init()
    run.progress.env_step = 2**32 - 80
    assert run.execute_epoch().env_step == 2**32
    assert run.execute_epoch().env_step == 2**32 + 80
    assert seen == [(2**32 - 80, pytest.approx(0.5)), (2**32, pytest.approx(0.5))]


class Uploads(trainer.EpochTrainCallback):
    """A callback as people write them."""

    def __init__(self, api_key):
        self.api_key = api_key
        self.password = [api_key]
        self.project = "mine"

    def callback(self, epoch, env_step, context):
        context.logger.write("train/env_step", env_step, {"epoch": epoch})


def test_a_secret_gets_into_no_file_and_no_output(world, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "canary-env")
    uploads = Uploads("canary-callback")
    folder = world.new()
    callbacks = TrainerCallbacks(epoch_train_callback=uploads)
    train(run_dir=folder, callbacks=callbacks, verbose=True)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) >= 6
    for path in written:
        assert b"canary" not in path.read_bytes(), path
    shown = capfd.readouterr()
    assert "canary" not in shown.out + shown.err + str(uploads) + json.dumps(uploads.state_dict())
    assert "project='mine'" in (folder / "config.json").read_text()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:] != ["--write"]:
        sys.exit("python tests/test_bad_inputs.py --write")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        text = table(World(Path(name).resolve()))
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(text)
