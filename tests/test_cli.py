"""The command line, in processes of its own: exit codes, one line of error, Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image

import jaxrl_cb
from jaxrl_cb.algorithms import VARIANTS
from jaxrl_cb.algorithms.registry import OWN
from jaxrl_cb.commands import axes
from jaxrl_cb.config import resolve

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


def test_resume_of_a_run_killed_before_its_first_checkpoint_begins_anew(run, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(run[0], path)
    before = (path / "metrics.jsonl").read_text()
    for entry in [*path.glob("policy*"), *(path / "checkpoints").iterdir()]:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    done = cli("resume", path)
    assert done.returncode == 0, done.stderr
    assert "the run starts anew" in done.stdout
    rows = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    name = "test/return_mean"
    assert [row[name] for row in rows] == [json.loads(row)[name] for row in before.splitlines()]


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


def test_evaluate_plays_gymnasiums_own_environment(run):
    folder, _ = run
    done = cli("evaluate", folder, "--gymnasium", "--episodes", 4, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["gymnasium"] is True
    # the same policy, seeds and environment, stepped one by one
    policy = jaxrl_cb.load_policy(folder)
    returns = []
    for seed in range(4):
        env = gymnasium.make("CartPole-v1")
        obs, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(int(policy.act(obs)))
            total, ended = total + reward, terminated or truncated
        returns.append(total)
    assert answer["mean"] == [np.mean(returns)]


def test_render_writes_an_animation(run, tmp_path):
    folder, _ = run
    done = cli("render", folder, "-o", tmp_path / "policy.gif")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "policy.gif") as animation:
        assert animation.n_frames > 3
        assert animation.size == (600, 400)
    num_frames = int(done.stdout.split("(")[1].split()[0])
    assert 9 <= num_frames <= 501
    for wrong in (["--index", 1], ["-o", "policy.mp4"]):
        done = cli("render", folder, *wrong)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1


def test_several_runs_are_compared_in_one_picture(run, tmp_path):
    folder, _ = run
    done = cli("plot", folder, folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "comparison.png"
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.size == (840, 540)


def test_a_run_begins_with_the_policy_of_another(run, tmp_path):
    folder, _ = run
    arguments = ["train", "CartPole-v1", *TINY, "--max-epochs", 0, "--warm-start", folder]
    done = cli(*arguments, "--run-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (jaxrl_cb.load_policy(f).params for f in (tmp_path, folder))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_envs_lists_what_there_is():
    done = cli("envs")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert len(lines) == 26
    for words in ("10 x 10 x 4", "3", "1000", "bits", "yes"):
        assert words in lines["Breakout-MinAtar"]
    assert "475" in lines["CartPole-v1"]
    assert "no: its actions are continuous" in lines["Pendulum-v1"]
    assert "downloads" in lines["MNISTBandit-bsuite"]


def test_algorithms_lists_papers_and_what_each_is_made_of():
    done = cli("algorithms")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in done.stdout.splitlines()]
    assert {row[0] for row in rows if row and row[0]} == OWN
    text = re.sub(r"\s+", " ", done.stdout)
    for name in OWN:
        (identifier,) = re.findall(r"(?:arXiv|doi):\S+$", VARIANTS[name].paper)
        assert identifier in text
        for setting in VARIANTS[name].settings:
            assert setting in text


def test_what_algorithms_are_made_of():
    assert axes("dqn") == "replay, uniform, 1-step; values"
    assert axes("double_dqn") == "replay, uniform, 1-step; values, double"
    assert axes("rainbow") == "replay, by priority, 3-step; dueling, noisy; categorical, double"
    assert axes("m_iqn") == "replay, uniform, 1-step; implicit quantiles, Munchausen"
    assert axes("pqn") == "rollouts, Q(lambda); values"


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
        (["train", "Pendulum-v1"], "Discrete one, as these have: CartPole-v1"),
        (["train", "MNISTBandit-bsuite"], "download"),
        (["train", "CartPole-v1", "--leraning-rate", "1"], "did you mean --learning-rate"),
        (["train", "CartPole-v1", "--lr", "1"], "did you mean --learning-rate"),
        (["train", "CartPole-v1", "--num-envs", "many"], "num-envs"),
        (["train", "CartPole-v1", "--num-envs", "0"], "num_envs=0"),
        (["train", "CartPole-v1", "--buffer-size", "100001"], "use 1"),
        (["train", "CartPole-v1", "--stop-at", "soon"], "stop_at"),
        (["train", "CartPole-v1", "--env-kwargs", "masscat", "2"], "did you mean 'masscart'"),
        (["train", "CartPole-v1", "--config", "/nowhere.json"], "nowhere"),
        (["evaluate", "/nowhere"], "config.json"),
        (["plot", "/nowhere"], "metrics.jsonl"),
        (["plot"], "run folder"),
        (["render", "/nowhere"], "config.json"),
        (["train", "CartPole-v1", "--warm-start", "/nowhere"], "config.json"),
        (["evaluate", "/nowhere", "--which", "first"], "best"),
        (["watch"], "there are train, sweep, resume, evaluate, plot"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, words, tmp_path):
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("on_nan", ["stop", "raise"])
def test_nan_in_every_seed_is_exit_code_1(on_nan, tmp_path):
    broken = ["--learning-rate", "1e30", "--loss", "squared", "--on-nan", on_nan]
    arguments = ["train", "CartPole-v1", *TINY, "--max-epochs", 2, *broken]
    done = cli(*arguments, "--run-dir", tmp_path / "run")
    assert done.returncode == 1, done.stderr
    assert "gradient update" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


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


def test_a_sweep_and_a_report_on_it(tmp_path):
    varied = ["--vary", "learning_rate=1e-3,1e-2", "n_step=1,2", "--halving", "1", "2"]
    arguments = ["--max-epochs", 2, "--num-seeds", 2, "--run-dir", tmp_path / "sweep"]
    done = cli("sweep", "CartPole-v1", *TINY, *varied, *arguments)
    assert done.returncode == 0, done.stderr
    assert "epoch 2: 4/8 seeds run" in done.stdout
    assert "4 trials of 2 seeds" in done.stdout
    table = (tmp_path / "sweep" / "trials.csv").read_text().splitlines()
    assert len(table) == 9
    assert sum(",dropped," in row for row in table) == 4
    groups = [tmp_path / "sweep" / f"group_{number}" for number in range(2)]
    settings = resolve("CartPole-v1", "c51", {}).flat()
    run = {"env": "CartPole-v1", "algorithm": "c51", "settings": settings}
    (tmp_path / "c51.json").write_text(json.dumps(run))
    small = [*TINY, "--max-epochs", 0, "--config", tmp_path / "c51.json"]
    done = cli("train", "CartPole-v1", *small, "--run-dir", tmp_path / "c51")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "c51" / "config.json").read_text())["algorithm"] == "c51"
    done = cli("resume", tmp_path / "sweep", "--max-epochs", 3)
    assert done.returncode == 0, done.stderr
    assert "epoch 3: 2/8 seeds run" in done.stdout
    rows = (tmp_path / "sweep" / "trials.csv").read_text().splitlines()
    assert {row for row in table if ",dropped," in row} < set(rows)
    done = cli("report", *groups, "-o", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "P(group_0 > group_1)" in done.stdout
    assert (tmp_path / "report" / "report.html").is_file()
    for wrong, words in ((["--vary", "learning_rte=1"], "did you mean"), ([], "needs something")):
        done = cli("sweep", "CartPole-v1", *wrong)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert words in done.stderr
