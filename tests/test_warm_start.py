"""Beginning with the parameters of another policy."""

import builtins
import os
import signal

import jax
import numpy as np
import pytest
from test_trainer import arrays, differing

import jaxrl_cb
from jaxrl_cb.errors import ConfigError, JaxrlError
from jaxrl_cb.trainer import Trainer, TrainerParams

SETTINGS = {
    "num_envs": 4,
    "batch_size": 16,
    "buffer_size": 400,
    "start_timesteps": 40,
    "epoch_num_steps": 80,
    "num_test_episodes": 3,
    "hidden_sizes": (16,),
    "max_epochs": 1,
    "verbose": False,
}


@pytest.fixture(scope="module")
def donor():
    """A run of two seeds."""
    return jaxrl_cb.train("CartPole-v1", num_seeds=2, **SETTINGS)


def begun(warm_start, **settings):
    """The result of the test before training."""
    settings = {**SETTINGS, "max_epochs": 0, **settings}
    return jaxrl_cb.train("CartPole-v1", warm_start=warm_start, **settings)


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_every_seed_begins_with_its_own_parameters_or_all_with_one(donor, vectorize_seeds):
    params = donor.policy.params
    settings = {"num_seeds": 2, "seed": 5, "vectorize_seeds": vectorize_seeds}
    result = begun(donor.policy, **settings)
    assert differing(arrays(result.state.params), arrays(params)) == []
    assert differing(arrays(result.state.target_params), arrays(params)) == []
    result = begun(donor.policy[1], **settings)
    second = [np.stack([a[1], a[1]]) for a in arrays(params)]
    assert differing(arrays(result.state.params), second) == []
    fresh = jaxrl_cb.train("CartPole-v1", **{**SETTINGS, "max_epochs": 0, **settings})
    assert differing(arrays(result.state.buffer), arrays(fresh.state.buffer)) == []


def test_a_run_folder_gives_its_best_policy(tmp_path):
    result = jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "run", **SETTINGS)
    again = begun(tmp_path / "run")
    assert differing(arrays(again.state.params), arrays(result.best_policy.params)) == []
    assert again.best_score != pytest.approx(0)


def test_training_goes_on_from_it(donor):
    plain = jaxrl_cb.train("CartPole-v1", **SETTINGS)
    warm = jaxrl_cb.train("CartPole-v1", warm_start=donor.policy[1], **SETTINGS)
    assert differing(arrays(warm.state.params), arrays(plain.state.params)) != []
    assert differing(arrays(warm.state.params), arrays(donor.policy[1].params)) != []


def test_what_does_not_fit_is_refused_by_name(donor):
    with pytest.raises(ConfigError, match=r"Dense_0.*\(16,\).*\(32,\).*hidden_sizes"):
        begun(donor.policy[0], hidden_sizes=(32,))
    with pytest.raises(ConfigError, match=r"LayerNorm_0.*(of none|is not there)"):
        begun(donor.policy[0], layer_norm=False)
    with pytest.raises(ConfigError, match=r"2 seeds.*num_seeds=1"):
        begun(donor.policy)


def test_a_result_is_not_a_policy(donor):
    with pytest.raises(TypeError, match=r"result\.best_policy"):
        begun(donor)
    assert repr(donor).startswith("TrainResult('CartPole-v1', stopped=[False False], diverged=")
    assert len(repr(donor)) < 300


def test_it_comes_before_the_run(donor):
    from test_trainer import cartpole

    trainer = Trainer(cartpole(), TrainerParams(max_epochs=0, epoch_num_steps=80))
    trainer.run()
    policy = trainer.result().policy
    with pytest.raises(JaxrlError, match="before the run"):
        trainer.warm_start(policy)


def test_statistics_of_normalised_observations_travel_with_the_policy(tmp_path):
    settings = {**SETTINGS, "normalize_obs": True}
    result = jaxrl_cb.train("CartPole-v1", run_dir=tmp_path / "run", **settings)
    stats = result.state.params["obs_stats"]
    # prefill 10 rows and training 20 rows of 4 environments, each acted upon once
    assert float(stats["count"][0]) == pytest.approx(120 + 1e-4)
    seen = np.asarray(result.state.buffer.obs)[0, :30].reshape(120, 4)
    np.testing.assert_allclose(
        np.asarray(stats["mean"])[0], seen.mean(axis=0), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(np.asarray(stats["variance"])[0], seen.var(axis=0), rtol=1e-3)
    # the target network's are the same; no gradient and no optimiser state is about them
    target = result.state.target_params["obs_stats"]
    jax.tree.map(np.testing.assert_array_equal, target, stats)
    num_learned = sum(a[0].size for a in arrays(result.state.params["params"]))
    assert max(a.size for a in arrays(result.state.opt_state)) == num_learned
    loaded = jaxrl_cb.load_policy(tmp_path / "run", "last")
    obs = np.array([0.1, -0.2, 0.03, 0.4], np.float32)
    np.testing.assert_array_equal(loaded.q_values(obs), result.policy.q_values(obs))
    plain = {"params": jax.tree.map(lambda x: np.asarray(x)[0], result.state.params["params"])}
    deviation = np.sqrt(np.asarray(stats["variance"])[0] + 1e-8)
    normalised = (obs - np.asarray(stats["mean"])[0]) / deviation
    expected = result.policy.algorithm.network.network.apply(plain, normalised)
    np.testing.assert_allclose(result.policy.q_values(obs), expected, rtol=1e-4, atol=1e-5)


def interrupt_at_epoch_2(record):
    if record.epoch == 2:
        os.kill(os.getpid(), signal.SIGINT)


def test_in_a_notebook_ctrl_c_returns_the_result_so_far(monkeypatch):
    settings = {**SETTINGS, "max_epochs": 50, "on_epoch": interrupt_at_epoch_2}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        jaxrl_cb.train("CartPole-v1", **settings)
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)
    result = jaxrl_cb.train("CartPole-v1", **settings)
    assert result.epoch == 2
    assert not result.stopped
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is before
