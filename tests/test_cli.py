"""The command line, in processes of its own: exit codes, one line of error, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = [
    *("--num-envs", "4", "--batch-size", "16", "--buffer-size", "400", "--start-timesteps", "40"),
    *("--epoch-num-steps", "400", "--num-test-episodes", "3", "--hidden-sizes", "16"),
]


def cli(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "jaxrl_cb", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in the default folder, and what the command printed."""
    home = tmp_path_factory.mktemp("home")
    done = cli("train", "CartPole-v1", *TINY, "--max-epochs", 2, "--no-double", cwd=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "runs").iterdir()
    return folder, done.stdout


def test_train_writes_its_default_folder_and_says_how_it_ended(run):
    folder, text = run
    assert folder.name.startswith("CartPole-v1__dqn__0__")
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["double"] is False
    assert settings["hidden_sizes"] == [16]
    assert "did not reach" in text
    assert "budget used" in text
    assert (folder / "learning_curve.png").is_file()


def test_evaluate_and_plot_read_the_folder(run):
    folder, _ = run
    done = cli("evaluate", folder, "--episodes", 5, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["episodes"] == 5
    assert len(answer["mean"]) == 1
    (folder / "learning_curve.png").unlink()
    done = cli("plot", folder)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == folder / "learning_curve.png"
    assert (folder / "learning_curve.png").is_file()


def test_config_of_another_run_gives_the_same_run(run, tmp_path):
    folder, _ = run
    done = cli("train", "CartPole-v1", "--config", folder / "config.json", "--run-dir", tmp_path)
    assert done.returncode == 0, done.stderr

    def rows(path):
        lines = (path / "metrics.jsonl").read_text().splitlines()
        return [
            {name: value for name, value in json.loads(line).items() if not name.startswith("time")}
            for line in lines
        ]

    assert rows(tmp_path) == rows(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "a gymnax id"),
        (["train", "Cartpole-v1"], "did you mean 'CartPole-v1'"),
        (["train", "Pendulum-v1"], "Discrete"),
        (["train", "MNISTBandit-bsuite"], "download"),
        (["train", "CartPole-v1", "--leraning-rate", "1"], "did you mean --learning-rate"),
        (["train", "CartPole-v1", "--num-envs", "many"], "num-envs"),
        (["train", "CartPole-v1", "--num-envs", "0"], "num_envs=0"),
        (["train", "CartPole-v1", "--buffer-size", "100001"], "use 1"),
        (["train", "CartPole-v1", "--stop-at", "soon"], "stop_at"),
        (["train", "CartPole-v1", "--env-kwargs", "masscat", "2"], "did you mean 'masscart'"),
        (["train", "CartPole-v1", "--config", "/nowhere.json"], "nowhere"),
        (["evaluate", "/nowhere"], "config.json"),
        (["plot", "/nowhere"], "metrics.jsonl"),
        (["watch"], "watch"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, words, tmp_path):
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_lists_every_setting():
    from jaxrl_cb.config import FIELDS

    text = cli("train", "--help").stdout
    for name in FIELDS:
        assert "--" + name.replace("_", "-") in text
    assert cli("--help").returncode == 0
    assert cli("evaluate", "--help").returncode == 0


def test_ctrl_c_keeps_what_was_done_and_exits_130(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxrl_cb", "train", "CartPole-v1", *TINY),
            *("--stop-at", "never", "--max-epochs", "100000", "--run-dir", str(folder)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 240
    for line in process.stdout:  # a line per epoch, as this is not a terminal
        if line.startswith("epoch 2"):
            break
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(rows) >= 3
    assert cli("evaluate", folder, "--episodes", 2).returncode == 0
