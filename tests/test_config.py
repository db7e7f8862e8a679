"""Settings by name: unknown ones, defaults that follow the number of environments, presets."""

import dataclasses
import json

import pytest

from jaxrl_cb.config import FIELDS, GROUPS, NetworkConfig, load_config, resolve
from jaxrl_cb.envs import make
from jaxrl_cb.errors import ConfigError, ConfigTypeError
from jaxrl_cb.presets import PRESETS


def test_setting_names_are_unique_across_groups():
    names = [field.name for group in GROUPS.values() for field in dataclasses.fields(group)]
    assert len(names) == len(set(names)) == len(FIELDS)


def test_unknown_setting_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        resolve(None, "dqn", {"leraning_rate": 1e-3})


@pytest.mark.parametrize("num_envs", [1, 3, 7, 16, 48, 60, 1000, 4096, 16384])
@pytest.mark.parametrize("env", [None, *sorted({env for env, _ in PRESETS})])
def test_any_number_of_environments_runs_alone(env, num_envs):
    config = resolve(env, "dqn", {"num_envs": num_envs})
    assert config.trainer.epoch_num_steps % num_envs == 0
    assert config.replay.buffer_size % num_envs == 0
    assert config.replay.start_timesteps % num_envs == 0
    assert config.replay.num_rows >= 1


@pytest.mark.parametrize("n_step", [1, 5, 200])
def test_prefill_default_is_long_enough_for_the_window(n_step):
    replay = resolve(None, "dqn", {"n_step": n_step, "num_envs": 16}).replay
    assert replay.start_timesteps >= (n_step - 1) * 16


def test_sizes_follow_the_number_of_environments():
    # batch = num_envs / 2 within [128, 8192]; learning rate 2.5e-4 * sqrt(batch / 128), <= 1e-3
    for num_envs, batch in [(128, 128), (1024, 512), (4096, 2048), (16384, 8192), (65536, 8192)]:
        config = resolve(None, "dqn", {"num_envs": num_envs})
        assert config.replay.batch_size == batch
        expected = min(2.5e-4 * (batch / 128) ** 0.5, 1e-3)
        assert config.optimizer.learning_rate == pytest.approx(expected)


def test_small_buffer_alone_runs():
    replay = resolve(None, "dqn", {"num_envs": 4, "buffer_size": 64}).replay
    assert replay.batch_size == 64
    assert replay.start_timesteps == 64


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"buffer_size": 1001}, "992 or 1008"),
        ({"epoch_num_steps": 1000, "num_envs": 48}, None),
        ({"start_timesteps": 100}, "96 or 112"),
    ],
)
def test_named_sizes_are_never_rounded(named, words):
    if words is None:  # the trainer checks the epoch, as it alone knows the environments
        assert resolve(None, "dqn", named).trainer.epoch_num_steps == 1000
        return
    with pytest.raises(ConfigError, match=words):
        resolve(None, "dqn", named)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_envs", 0, ConfigError),
        ("num_envs", -1, ConfigError),
        ("num_envs", 2.5, ConfigTypeError),
        ("num_envs", "16", ConfigTypeError),
        ("num_envs", True, ConfigTypeError),
        ("batch_size", 0, ConfigError),
        ("buffer_size", 0, ConfigError),
        ("epoch_num_steps", 0, ConfigError),
        ("epoch_num_steps", 1e3, ConfigTypeError),
        ("max_epochs", -1, ConfigError),
        ("learning_rate", float("nan"), ConfigError),
        ("learning_rate", -1.0, ConfigError),
        ("learning_rate", "1e-3", ConfigTypeError),
        ("gamma", 1.1, ConfigError),
        ("gamma", -0.1, ConfigError),
        ("tau", 0.0, ConfigError),
        ("tau", 1.5, ConfigError),
        ("n_step", 0, ConfigError),
        ("target_update_period", 0, ConfigError),
        ("samples_per_insert", -1.0, ConfigError),
        ("samples_per_insert", 0.12345678901234, ConfigError),
        ("seed", -1, ConfigError),
        ("seed", 2**40, ConfigError),
        ("seed", 1.5, ConfigTypeError),
        ("num_seeds", 0, ConfigError),
        ("epsilon_start", 2.0, ConfigError),
        ("epsilon_decay_steps", -1, ConfigError),
        ("loss", "hubber", ConfigError),
        ("learning_rate_schedule", "step", ConfigError),
        ("max_grad_norm", 0.0, ConfigError),
        ("hidden_sizes", (64, 0), ConfigError),
        ("hidden_sizes", 64, ConfigTypeError),
        ("double", 1, ConfigTypeError),
        ("dueling", "yes", ConfigTypeError),
    ],
)
def test_bad_values_are_refused_by_name(name, value, error):
    with pytest.raises(error, match=name):
        resolve(None, "dqn", {name: value})


def test_named_settings_override_the_preset_and_nothing_else_changes():
    plain = resolve("CartPole-v1", "dqn", {}).flat()
    named = resolve("CartPole-v1", "dqn", {"gamma": 0.5}).flat()
    assert named.pop("gamma") == 0.5
    plain.pop("gamma")
    assert named == plain
    for name, value in PRESETS["CartPole-v1", "dqn"].items():
        assert plain.get(name, value) == value


def test_presets_hold_only_settings_and_no_threshold():
    for preset in PRESETS.values():
        assert set(preset) <= set(FIELDS)
        assert not any("threshold" in name for name in preset)


def test_settings_survive_json():
    config = resolve("CartPole-v1", "dqn", {"hidden_sizes": (32, 16), "env_kwargs": {"tau": 0.01}})
    data = {"env": "CartPole-v1", "algorithm": "dqn", "settings": config.flat()}
    env, algorithm, settings = load_config(json.dumps(data))
    assert resolve(env, algorithm, settings) == config


def test_unknown_algorithm_is_refused():
    with pytest.raises(ConfigError, match="'dqn'"):
        resolve(None, "dpn", {})


@pytest.mark.parametrize(("network", "env"), [("mlp", "CartPole-v1"), ("cnn", "Breakout-MinAtar")])
def test_every_setting_of_a_network_reaches_it(network, env):
    own = {
        "hidden_sizes": (7, 5),
        "layer_norm": False,
        "dueling": True,
        "compute_dtype": "bfloat16",
        "noisy": True,
    }
    config = resolve(None, "dqn", {"network": network, **own})
    built = config.build_algorithm(make(env).spec).network
    assert {name: getattr(built, name) for name in own} == own
    assert {f.name for f in dataclasses.fields(NetworkConfig)} == {*own, "network", "normalize_obs"}
