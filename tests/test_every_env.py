"""Every gymnax environment that can be trained on is trained, and goes on from a snapshot."""

import dataclasses

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_envs import CONTINUOUS
from test_trainer import assert_same_run

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.envs.gymnax import BINARY, catalog, discrete_ids
from jaxrl_cb.learners import Exploration, ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import Trainer, TrainerParams

SUPPORTED = [
    env_id
    for env_id in gymnax.registered_envs
    if env_id not in CONTINUOUS and env_id != "MNISTBandit-bsuite"
]


def test_the_catalog_is_gymnaxs_registry():
    assert [entry.id for entry in catalog()] == list(gymnax.registered_envs)
    assert discrete_ids() == SUPPORTED
    assert len(SUPPORTED) == 20
    reasons = {entry.id: entry.reason for entry in catalog() if not entry.space}
    assert set(reasons) == CONTINUOUS | {"MNISTBandit-bsuite"}
    assert "downloads" in reasons["MNISTBandit-bsuite"]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", SUPPORTED)
def test_it_trains_for_an_epoch_and_goes_on_bit_for_bit(env_id):
    limits = {} if env_id == "DeepSea-bsuite" else {"max_steps_in_episode": 12}
    environment = make(env_id, limits)
    learner = ReplayLearner(
        environment,
        DQN(MLP(environment.spec.num_actions, (16,))),
        ReplayConfig(
            num_envs=4, buffer_size=160, batch_size=16, samples_per_insert=4.0, start_timesteps=80
        ),
        exploration=Exploration(epsilon_decay_steps=100),
    )
    params = TrainerParams(max_epochs=2, epoch_num_steps=80, num_test_episodes=3)
    first = Trainer(learner, params)
    epochs = first.epochs()
    next(epochs), next(epochs)
    snapshot = first.snapshot()
    straight = first.run()
    second = Trainer(learner, params)
    second.restore(snapshot)
    assert_same_run(second.run(), straight)

    record = straight.history[-1]
    assert record.env_step == 160
    assert int(straight.state.num_updates) == 40
    assert np.isfinite(record.train_loss).all()
    assert np.isfinite(record.returns).all()
    assert (record.lengths > 0).all()
    assert (record.lengths <= environment.spec.time_limit).all()
    buffer = straight.state.buffer
    assert int(buffer.num_masked[0]) == int(buffer.num_lossy[0]) == 0
    # What is not declared binary is not; of what is, see the next test.
    is_binary = environment.spec.is_binary
    assert is_binary or not set(np.unique(buffer.obs).tolist()) <= {0, 1}
    assert not jnp.array_equal(
        *(jax.tree.leaves(p)[0] for p in (straight.state.params, straight.state.target_params))
    )


@pytest.mark.parametrize("env_id", sorted(BINARY))
def test_what_is_declared_binary_is_in_whole_episodes(env_id):
    environment = make(env_id)

    def play(key):
        states, obs = environment.reset_all(jax.random.split(key, 8))

        def step(states, key):
            keys = jax.random.split(key, 17)
            actions = jax.random.randint(keys[0], (8,), 0, environment.spec.num_actions)
            result = environment.step_all(keys[1:9], keys[9:], states, actions)
            return result.state, (result.obs, result.final_obs)

        return obs, jax.lax.scan(step, states, jax.random.split(key, 60))[1]

    leaves = jax.tree.leaves(jax.jit(play)(jax.random.key(0)))
    values = np.unique(np.concatenate([np.asarray(leaf).ravel() for leaf in leaves]))
    assert set(values.tolist()) <= {0, 1}
    assert environment.spec.is_binary


def test_one_of_n_states_is_a_one_hot_vector():
    environment = make("FrozenLake-misc")
    assert environment.spec.obs_shape == (16,)
    assert environment.spec.is_binary
    state, obs = jax.jit(environment.reset)(jax.random.key(0))
    assert obs.tolist() == [1.0] + [0.0] * 15
    step = jax.jit(environment.step)
    for seed in range(5):
        keys = jax.random.split(jax.random.key(seed))
        result = step(*keys, state, jnp.int32(2))
        assert sorted(result.final_obs.tolist()) == [0.0] * 15 + [1.0]


def test_a_continuous_environment_is_refused_with_the_list_of_those_that_work():
    with pytest.raises(ValueError, match="Discrete one") as caught:
        make("Pendulum-v1")
    for env_id in SUPPORTED:
        assert env_id in str(caught.value)


def test_a_wrong_claim_of_binary_observations_ends_the_run():
    environment = make("CartPole-v1")
    spec = dataclasses.replace(environment.spec, is_binary=True)
    learner = ReplayLearner(
        dataclasses.replace(environment, spec=spec, cache_key="a wrong claim"),
        DQN(MLP(2, (8,))),
        ReplayConfig(num_envs=2, buffer_size=100, batch_size=4, start_timesteps=20),
    )
    with pytest.raises(ValueError, match="is_binary=False"):
        Trainer(learner, TrainerParams(max_epochs=1, epoch_num_steps=20)).run()
