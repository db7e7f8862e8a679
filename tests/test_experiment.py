"""`train`, the run folder, `load_policy` and `evaluate`, as a user calls them."""

import json
import os
import threading

import gymnax
import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

import jaxrl_cb
from jaxrl_cb.config import resolve
from jaxrl_cb.envs import functional
from jaxrl_cb.errors import ConfigError, JaxrlError, RunFolderError
from jaxrl_cb.run_folder import RunFolder
from jaxrl_cb.trainer import (
    EpochStopCallbackConfirmedRewardThreshold,
    EpochStopCallbackRewardThreshold,
    EpochTrainCallback,
    EpochTrainCallbackDQNEpsLinearDecay,
    MemoryLogger,
    TrainerCallbacks,
)

TINY = tiny.TINY | {"max_epochs": 2}
SHORT = tiny.SHORT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two seeds with its folder."""
    path = tmp_path_factory.mktemp("runs") / "run"
    logger = MemoryLogger()
    decay = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 100)
    callbacks = TrainerCallbacks(epoch_train_callback=decay)
    result = jaxrl_cb.train(
        *("CartPole-v1", "dqn"),
        **(TINY | SHORT),
        seed=5,
        num_seeds=2,
        callbacks=callbacks,
        logger=logger,
        run_dir=path,
    )
    return path, result, logger


def test_folder_has_everything_and_no_pickle(run):
    path, _, _ = run
    assert {p.name for p in path.iterdir()} == {
        *("config.json", "metrics.jsonl", "versions.json", "policy.json"),
        *("policy_best.safetensors", "policy_last.safetensors", "learning_curve.png"),
        *(".lock", "checkpoints"),
    }
    config = json.loads((path / "config.json").read_text())
    assert (config["env"], config["algorithm"]) == ("CartPole-v1", "dqn")
    assert config["settings"]["seed"] == 5
    assert "EpochTrainCallbackDQNEpsLinearDecay[eps_train=1.0" in config["callbacks"]
    assert "0x" not in config["callbacks"]
    assert (path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "jax" in json.loads((path / "versions.json").read_text())["packages"]


def test_a_convolution_is_a_setting_that_a_folder_keeps(tmp_path):
    sizes = TINY | {"max_epochs": 1, "epoch_num_steps": 40, "num_test_episodes": 2}
    result = jaxrl_cb.train("Breakout-MinAtar", network="cnn", run_dir=tmp_path / "run", **sizes)
    shapes = jax.tree.map(np.shape, result.policy.params["params"])
    assert shapes["conv"]["kernel"] == (1, 36, 16)
    assert shapes["mlp"]["Dense_0"]["kernel"] == (1, 8 * 8 * 16, 16)
    obs = np.random.default_rng(0).integers(0, 2, (50, 10, 10, 4)).astype(np.float32)
    loaded = jaxrl_cb.load_policy(tmp_path / "run", "last")
    np.testing.assert_array_equal(loaded.act(obs), result.policy.act(obs))


def test_metrics_have_a_row_per_test_and_per_callback_write(run):
    path, result, logger = run
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    kinds = [row["step_type"] for row in rows]
    assert kinds == ["test/env_step", *["train/env_step", "test/env_step"] * 2]
    assert [row["step"] for row in rows] == [0, 0, 80, 80, 160]
    tests = [row for row in rows if row["step_type"] == "test/env_step"]
    for row, record in zip(tests, result.history, strict=True):
        assert row["test/return_mean"] == record.mean.tolist()
    assert tests[0]["train/loss"] == [None, None]  # no gradient step yet: null, not NaN
    assert [(kind, step) for kind, step, _ in logger.rows] == [
        (row["step_type"], row["step"]) for row in rows
    ]


def test_loaded_policies_are_those_of_the_result(run):
    path, result, _ = run
    obs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    for which, policy in (("best", result.best_policy), ("last", result.policy)):
        loaded = jaxrl_cb.load_policy(path, which)
        np.testing.assert_array_equal(loaded.q_values(obs), policy.q_values(obs))
        assert loaded.q_values(obs).shape == (2, 3, 2)
        one = jaxrl_cb.load_policy(path, which, seed=1)
        np.testing.assert_allclose(one.q_values(obs), policy.q_values(obs)[1], rtol=1e-5)
    arrays = load_file(path / "policy_best.safetensors")
    assert all(array.shape[0] == 2 for array in arrays.values())


def test_evaluate_is_repeatable_and_uses_its_arguments(run):
    _, result, _ = run
    first = jaxrl_cb.evaluate(result.policy, "CartPole-v1", episodes=7)
    again = jaxrl_cb.evaluate(result.policy, "CartPole-v1", episodes=7)
    np.testing.assert_array_equal(first, again)
    assert first[0].shape == first[1].shape == (2,)
    other = jaxrl_cb.evaluate(result.policy, "CartPole-v1", episodes=7, seed=1)
    assert not np.array_equal(first, other)
    mean, std = jaxrl_cb.evaluate(result.policy[0], "CartPole-v1", episodes=7)
    assert isinstance(mean, float)
    assert isinstance(std, float)
    assert mean == pytest.approx(first[0][0])
    with pytest.raises(ConfigError, match="trained for 'CartPole-v1'"):
        jaxrl_cb.evaluate(result.policy, "Acrobot-v1")


def test_constant_policy_gets_the_return_of_a_plain_loop(run):
    """`evaluate` against a loop over gymnax itself with the same policy and the same dynamics."""
    _, result, _ = run
    policy = result.policy[0]
    env, params = gymnax.make("CartPole-v1")
    returns = []
    for seed in range(60):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            obs, state = env.reset(jax.random.key(seed), params)
            total, done = 0.0, False
            while not done and total < 500:
                action = policy.act(obs)
                obs, state, reward, *ends, _ = env.step(jax.random.key(0), state, action, params)
                total, done = total + float(reward), bool(ends[0] | ends[1])
        returns.append(total)
    mean, std = jaxrl_cb.evaluate(policy, "CartPole-v1", episodes=400)
    error = std * np.sqrt(1 / 60 + 1 / 400)
    assert abs(mean - np.mean(returns)) < 5 * error + 1e-6


def test_folder_that_is_not_empty_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "something").write_text("x")
    with pytest.raises(RunFolderError, match="not an empty folder"):
        jaxrl_cb.train("CartPole-v1", run_dir=tmp_path, **TINY)
    with pytest.raises(RunFolderError, match=r"config\.json"):
        jaxrl_cb.load_policy(tmp_path)
    with pytest.raises(ConfigError, match="best"):
        jaxrl_cb.load_policy(tmp_path, "worst")


def test_wrong_settings_leave_no_folder(tmp_path):
    path = tmp_path / "run"
    for wrong in ({"epoch_num_steps": 81}, {"env": "Cartpole-v1"}, {"env": "Pendulum-v1"}):
        arguments = {"env": "CartPole-v1", **TINY, **wrong, "run_dir": path}
        with pytest.raises(ConfigError):
            jaxrl_cb.train(**arguments)
        assert not path.exists()


def test_missing_threshold_is_an_error_before_anything_runs():
    callbacks = TrainerCallbacks(epoch_stop_callback=EpochStopCallbackRewardThreshold())
    with pytest.raises(ValueError, match=r"Catch-bsuite.*threshold"):
        jaxrl_cb.train("Catch-bsuite", callbacks=callbacks, **TINY)


def test_nothing_is_written_without_a_run_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jaxrl_cb.train("CartPole-v1", **(TINY | SHORT | {"max_epochs": 0}))
    assert os.listdir(tmp_path) == []


def test_environment_objects_pairs_and_functions_train():
    env, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=50)
    # An id brings its preset along, an object does not.
    settings = resolve("CartPole-v1", "dqn", {k: v for k, v in TINY.items() if k != "verbose"})
    settings = settings.flat() | {"env_kwargs": {}, "verbose": False}
    pair = jaxrl_cb.train((env, params), **settings)
    by_id = jaxrl_cb.train("CartPole-v1", **(TINY | SHORT))
    np.testing.assert_array_equal(pair.history[-1].returns, by_id.history[-1].returns)

    def reset(key):
        return jax.numpy.int32(0), jax.numpy.zeros(2)

    def step(key, state, action):
        state = state + 1
        obs = jax.numpy.array([1.0, 0.0])
        return state, obs, action.astype(float), state >= 3, jax.numpy.bool_(False)

    own = functional(reset, step, num_actions=2, time_limit=3)
    result = jaxrl_cb.train(own, **TINY)
    assert result.history[0].lengths.tolist() == [[3, 3, 3]]


def test_callback_errors_come_out_unchanged_with_a_note(tmp_path):
    class Breaks(EpochTrainCallback):
        def callback(self, epoch, env_step, context):
            if epoch == 2:
                raise KeyError("mine")

    callbacks = TrainerCallbacks(epoch_train_callback=Breaks())
    with pytest.raises(KeyError, match="mine") as error:
        jaxrl_cb.train("CartPole-v1", callbacks=callbacks, **(TINY | SHORT))
    assert error.value.__notes__ == ["Breaks.callback, epoch 2"]


def test_training_off_the_main_thread_works():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(jaxrl_cb.train("CartPole-v1", **(TINY | SHORT)))
    )
    thread.start()
    thread.join()
    assert results[0].epoch == 2


def test_schedule_is_printed_with_its_numbers(capsys):
    printing = {"verbose": True, "max_epochs": 1, "samples_per_insert": 8}
    jaxrl_cb.train("CartPole-v1", **(TINY | SHORT | printing))
    text = capsys.readouterr().out
    # 80 steps x 8 samples per insert / 16 per batch = 40 gradient steps in an epoch
    assert "40 gradient steps of 16 per epoch" in text
    assert "each transition is used 8 times" in text
    assert "400 transitions, 40 before training" in text


def test_our_errors_share_a_base():
    with pytest.raises(JaxrlError):
        jaxrl_cb.train("CartPole-v1", no_such_setting=1)


def test_run_folder_refuses_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(RunFolderError):
        RunFolder(path)


def test_a_second_train_with_other_numbers_compiles_nothing(tmp_path, compiles):
    stop = EpochStopCallbackConfirmedRewardThreshold(1e9, episodes=10)
    decay = EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 100)
    callbacks = TrainerCallbacks(epoch_train_callback=decay, epoch_stop_callback=stop)
    base = {**TINY, **SHORT, "callbacks": callbacks}
    jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "first", **base)
    compiles()
    other = {
        **{"seed": 7, "learning_rate": 0.01, "gamma": 0.9, "tau": 0.5, "max_epochs": 3},
        **{"epsilon_start": 0.9, "epsilon_final": 0.2, "epsilon_decay_steps": 33},
    }
    result = jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "second", **{**base, **other})
    assert result.epoch == 3
    assert compiles() == 0


class FailsLater(EpochTrainCallback):
    def callback(self, epoch, env_step, context):
        context.logger.write(
            "mine/env_step", env_step, {"array": np.arange(3), "one": np.float32(2)}
        )
        if epoch == 2:
            raise RuntimeError("boom")


def test_a_callback_that_raises_leaves_the_policies_of_what_was_done(tmp_path):
    callbacks = TrainerCallbacks(epoch_train_callback=FailsLater())
    with pytest.raises(RuntimeError, match="boom"):
        jaxrl_cb.train(
            "CartPole-v1",
            run_dir=tmp_path / "run",
            callbacks=callbacks,
            **{**TINY, "max_epochs": 3},
        )
    assert jaxrl_cb.load_policy(tmp_path / "run", "last").num_seeds == 1
    assert (tmp_path / "run" / "learning_curve.png").is_file()
    rows = [
        json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    mine = [row for row in rows if row["step_type"] == "mine/env_step"]
    assert mine[0]["array"] == [0, 1, 2]
    assert mine[0]["one"] == 2.0


def test_a_failing_save_does_not_hide_the_error_that_came_first(tmp_path, monkeypatch):
    def full(self, result):
        raise OSError("disk full")

    monkeypatch.setattr(RunFolder, "save_policies", full)
    callbacks = TrainerCallbacks(epoch_train_callback=FailsLater())
    with pytest.raises(RuntimeError, match="boom") as caught:
        jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "a", callbacks=callbacks, **TINY)
    assert caught.value.__notes__ == ["FailsLater.callback, epoch 2", "OSError: disk full"]
    with pytest.raises(OSError, match="disk full"):
        jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "b", **TINY)


def test_verbose_prints_a_line_per_epoch_unless_something_else_shows_them(capsys):
    settings = {**TINY, "max_epochs": 1, "verbose": True}
    jaxrl_cb.train("CartPole-v1", **settings)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[-2:]] == ["epoch 0", "epoch 1"]
    jaxrl_cb.train("CartPole-v1", on_epoch=lambda record: None, **settings)
    assert "epoch 1:" not in capsys.readouterr().out
