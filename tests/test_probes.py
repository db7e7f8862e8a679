"""Training reaches the true values of environments that can be solved on paper (`probes.py`)."""

import jax
import numpy as np
import probes
import pytest
from jax import lax

from jaxrl_cb.algorithms import DQN, PQN
from jaxrl_cb.learners import (
    Exploration,
    OnlineConfig,
    OnlineLearner,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import Trainer, TrainerParams

GAMMA, NUM_ENVS, NUM_UPDATES = 0.9, 8, 3000


def learner_of(environment, n, algorithm=None, **replay):
    """Acts at random, one gradient step per vector step, the target copied every 20 of them."""
    network = MLP(environment.spec.num_actions, hidden_sizes=(32,), layer_norm=False)
    return ReplayLearner(
        environment,
        algorithm or DQN(network),
        ReplayConfig(
            num_envs=NUM_ENVS,
            buffer_size=1024,
            batch_size=64,
            samples_per_insert=8,
            start_timesteps=(n - 1) * NUM_ENVS,
            n_step=n,
            **replay,
        ),
        TargetConfig(gamma=GAMMA, tau=1.0, target_update_period=20),
        optimizer=OptimizerConfig(learning_rate=1e-2, learning_rate_schedule="linear"),
        exploration=Exploration(epsilon_start=1.0, epsilon_final=1.0),
    )


def online_learner_of(environment, algorithm=None):
    """Acts at random, one gradient step for each rollout of 8 vector steps, lambda 0.65."""
    network = MLP(environment.spec.num_actions, hidden_sizes=(32,), layer_norm=False)
    return OnlineLearner(
        *(environment, algorithm or PQN(network), NUM_ENVS),
        OnlineConfig(rollout_length=8, num_minibatches=1, update_epochs=1),
        GAMMA,
        optimizer=OptimizerConfig(learning_rate=1e-2, learning_rate_schedule="linear"),
        exploration=Exploration(epsilon_start=1.0, epsilon_final=1.0),
    )


def learned(environment, obs, n=1, algorithm=None, learner=None):
    """[B, A] action values after training, in one program compiled for speed of compiling."""
    learner = learner or learner_of(environment, n, algorithm)

    def run(seed, initial):
        state = learner.init(seed, *initial)
        state, _ = lax.scan(lambda s, _: (learner.step(s)[0], None), state, length=NUM_UPDATES)
        q_values = jax.vmap(learner.algorithm.q_values, (None, 0, None))
        return q_values(state.params, np.array(obs, np.float32), None), state.num_updates

    def array(x):
        return np.asarray(x, np.int32 if np.result_type(x).kind == "i" else np.float32)

    initial = jax.tree.map(array, learner.initial_values(NUM_UPDATES * learner.iteration_steps))
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        q, num_updates = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(
            np.uint32(0), initial
        )
    assert num_updates == NUM_UPDATES
    return np.asarray(q)


def test_constant_reward_is_learned():
    q = learned(probes.constant_reward(), [[0]])
    np.testing.assert_allclose(q, [[1, 1]], atol=0.02)


def test_value_follows_the_observation():
    q = learned(probes.reward_of_observation(), [[-1], [1]])
    np.testing.assert_allclose(q, [[-1, -1], [1, 1]], atol=0.02)


@pytest.mark.parametrize("n", [1, 3])
def test_value_of_a_later_reward_is_discounted(n):
    # with n = 3 the window is longer than the episode, whose end is within it: 0 + 0.9 * 1
    q = learned(probes.delayed_reward(), [[0], [1]], n)
    np.testing.assert_allclose(q, [[0.9, 0.9], [1, 1]], atol=0.02)


def test_value_tells_actions_apart():
    q = learned(probes.reward_of_action(), [[0]])
    np.testing.assert_allclose(q, [[-1, 1]], atol=0.02)


def test_value_tells_actions_apart_by_observation():
    q = learned(probes.reward_of_action_and_observation(), [[-1], [1]])
    np.testing.assert_allclose(q, [[1, -1], [-1, 1]], atol=0.02)


def test_truncation_is_not_death():
    q = learned(probes.endless(), np.eye(10))
    np.testing.assert_allclose(q, np.full((10, 2), 10.0), atol=0.05)


RESET_ELSEWHERE = [[2.9889, 2.9889], [3.3210, 3.3210], [3.6900, 3.6900]]  # see the probe


def test_three_step_returns_bootstrap_from_the_final_observation_of_a_truncated_episode():
    q = learned(probes.reset_elsewhere(), np.eye(3), n=3)
    np.testing.assert_allclose(q, RESET_ELSEWHERE, atol=0.02)


@pytest.mark.parametrize(
    ("probe", "obs", "expected"),
    [
        ("constant_reward", [[0]], [[1, 1]]),
        ("delayed_reward", [[0], [1]], [[0.9, 0.9], [1, 1]]),
        ("reward_of_action_and_observation", [[-1], [1]], [[1, -1], [-1, 1]]),
        ("endless", np.eye(10), np.full((10, 2), 10.0)),
        ("reset_elsewhere", np.eye(3), RESET_ELSEWHERE),
    ],
)
def test_returns_of_rollouts_lead_to_the_same_values(probe, obs, expected):
    environment = getattr(probes, probe)()
    q = learned(environment, obs, learner=online_learner_of(environment))
    np.testing.assert_allclose(q, expected, atol=0.05)


def test_trainer_bootstraps_from_the_final_observation_of_a_truncated_episode():
    learner = learner_of(probes.reset_elsewhere(), n=1)
    params = TrainerParams(max_epochs=1, epoch_num_steps=NUM_UPDATES * NUM_ENVS)
    with jax.numpy_dtype_promotion("standard"):
        result = Trainer(learner, params).run()
        q = result.policy.q_values(np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(q, RESET_ELSEWHERE, atol=0.02)
    # a test episode is at places 0, 1, 2, 0, 1: one reward, undiscounted, and cut at five steps
    assert np.all(result.history[-1].returns == 1)
    assert np.all(result.history[-1].lengths == 5)
