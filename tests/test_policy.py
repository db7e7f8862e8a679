"""Policies: shapes, greedy and epsilon-greedy actions, one seed of several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import EnvSpec, make
from jaxrl_cb.learners import (
    Exploration,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import EpochTestCallback, Policy, Trainer, TrainerCallbacks, TrainerParams

SPEC = EnvSpec("Toy-v0", (4,), "float32", 3, 10)
NETWORK = MLP(3, (16,))


def made(num_seeds, epsilon=0.0):
    """A policy of different random networks."""
    each = [NETWORK.init(jax.random.key(seed), jnp.zeros(4)) for seed in range(num_seeds)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    return Policy(DQN(NETWORK), SPEC, params, epsilon)


def observations(size, seed=0):
    return np.random.default_rng(seed).normal(size=(size, 4)).astype(np.float32)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_shapes_of_one_observation_and_of_batches(num_seeds):
    policy = made(num_seeds)
    lead = () if num_seeds == 1 else (3,)
    assert policy.num_seeds == num_seeds
    one = observations(1)[0]
    key = jax.random.key(0)
    assert policy.q_values(one).shape == (*lead, 3)
    assert policy.act(one).shape == policy.act(one, key).shape == lead
    for size in (1, 2, 3, 5, 0):
        batch = observations(size)
        assert policy.q_values(batch).shape == (*lead, size, 3)
        assert policy.act(batch).shape == (*lead, size)
    assert policy.act(observations(5), key).shape == (*lead, 5)
    for answer in (policy.act(one), policy.act(one, key), policy.q_values(one)):
        assert isinstance(answer, np.ndarray | np.generic)
    assert policy.act(one).dtype == policy.act(one, key).dtype == np.int32
    assert policy.q_values(one).dtype == np.float32
    if num_seeds == 1:
        assert int(policy.act(one)) in range(3)  # 0-d: serves as a number


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_q_values_are_the_networks(num_seeds):
    policy = made(num_seeds)
    batch = observations(5)
    got = policy.q_values(batch).reshape(num_seeds, 5, 3)
    for seed in range(num_seeds):
        params = NETWORK.init(jax.random.key(seed), jnp.zeros(4))
        for row, obs in enumerate(batch):
            expected = NETWORK.apply(params, obs)
            np.testing.assert_allclose(got[seed, row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_an_observation_has_the_same_values_alone_and_in_any_batch(num_seeds):
    policy = made(num_seeds)
    batch = observations(5)
    whole = policy.q_values(batch)
    for size in (1, 2, 3):
        part = policy.q_values(batch[:size])
        np.testing.assert_allclose(part, whole[..., :size, :], rtol=1e-5, atol=1e-5)
    for row, obs in enumerate(batch):
        np.testing.assert_allclose(policy.q_values(obs), whole[..., row, :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_act_takes_the_action_of_the_highest_value(num_seeds):
    policy = made(num_seeds)
    batch = observations(50)
    actions = policy.act(batch)
    np.testing.assert_array_equal(actions, policy.q_values(batch).argmax(axis=-1))
    assert set(actions.ravel().tolist()) == {0, 1, 2}
    for obs in batch[:3]:
        np.testing.assert_array_equal(policy.act(obs), policy.q_values(obs).argmax(axis=-1))


def test_numbers_of_any_kind_are_observations():
    policy = made(1)
    obs = [0.5, -1.0, 2.0, 0.0]
    expected = policy.q_values(np.array(obs, np.float32))
    for other in (obs, tuple(obs), np.array(obs), jnp.array(obs), np.array(obs, np.float16)):
        np.testing.assert_array_equal(policy.q_values(other), expected)
    pair = policy.q_values([obs, obs])
    np.testing.assert_allclose(pair, [expected, expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        policy.q_values([1, 2, 3, 4]), policy.q_values([1.0, 2.0, 3.0, 4.0])
    )


@pytest.mark.parametrize("shape", [(), (3,), (5,), (2, 3), (4, 1), (2, 2, 4), (1, 4, 1)])
def test_observations_of_another_shape_are_refused(shape):
    policy = made(1)
    for call in (policy.act, policy.q_values):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call(np.zeros(shape))
        assert str(shape) in str(caught.value)
        assert "(4,)" in str(caught.value)


def test_with_a_key_it_explores_by_its_epsilon():
    # Of the random actions one in three is the greedy one. 6000 coins: a standard deviation of at
    # most 0.0065.
    same = np.tile(observations(1), (6000, 1))
    greedy = int(made(1).act(same[0]))
    for epsilon, others in ((0.0, 0.0), (0.3, 0.2), (1.0, 2 / 3)):
        actions = made(1, epsilon).act(same, jax.random.key(0))
        shares = np.bincount(actions, minlength=3) / 6000
        expected = [others / 2] * 3
        expected[greedy] = 1 - others
        np.testing.assert_allclose(shares, expected, atol=0.026 if epsilon else 0)


def test_without_a_key_it_is_greedy_whatever_its_epsilon():
    batch = observations(20)
    np.testing.assert_array_equal(made(1, 1.0).act(batch), made(1).act(batch))


def test_the_key_decides():
    policy, batch = made(1, 1.0), observations(64)
    first, again = (policy.act(batch, jax.random.key(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != policy.act(batch, jax.random.key(6))).any()
    singles = {int(policy.act(batch[0], jax.random.key(seed))) for seed in range(40)}
    assert singles == {0, 1, 2}


def test_each_seed_explores_by_its_own_epsilon():
    policy = made(3, np.array([0.0, 0.5, 1.0]))
    assert policy.epsilon.tolist() == [0.0, 0.5, 1.0]
    same = np.tile(observations(1), (6000, 1))
    explored = (policy.act(same, jax.random.key(1)) != policy.act(same)).mean(axis=1)
    assert explored[0] == 0.0
    assert explored[1:] == pytest.approx([1 / 3, 2 / 3], abs=0.026)
    assert policy[1].epsilon.tolist() == [0.5]


def test_one_seed_of_several():
    policy, batch = made(3), observations(5)
    whole = policy.q_values(batch)
    for index in (0, 1, 2, -1):
        one = policy[index]
        assert one.num_seeds == 1
        assert all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(one.params))
        np.testing.assert_allclose(one.q_values(batch), whole[index], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.act(batch), policy.act(batch)[index])
    assert np.abs(whole[0] - whole[1]).max() > 0.1  # they are different networks
    for index in (3, -4):
        with pytest.raises(IndexError):
            policy[index]
    assert len(list(policy)) == 3
    np.testing.assert_array_equal(made(1)[0].q_values(batch), made(1).q_values(batch))


def test_batches_share_programs_and_calls_compile_once(compiles):
    policy = made(1)
    network = MLP(3, (8,))
    policy = Policy(
        DQN(network),
        SPEC,
        jax.tree.map(lambda x: np.asarray(x)[None], network.init(jax.random.key(0), jnp.zeros(4))),
    )
    batches = {size: observations(size) for size in (4, 5, 6, 7, 8)}
    compiles()
    policy.act(batches[8])
    assert compiles() > 0
    policy.act(batches[8])
    for size in (5, 6, 7):
        assert policy.act(batches[size]).shape == (size,)
    twin = Policy(DQN(MLP(3, (8,))), SPEC, policy.params)  # an equal algorithm
    twin.act(batches[8])
    assert compiles() == 0


# --- in a run ---


class Asks(EpochTestCallback):
    """Uses the handle as a policy, in the midst of training."""

    def __init__(self):
        self.q_values = []

    def callback(self, epoch, env_step, context):
        batch = observations(3)
        q_values = context.policy.q_values(batch)
        np.testing.assert_array_equal(context.policy.act(batch), q_values.argmax(axis=-1))
        assert context.policy.act(batch[0]).shape == ()
        context.policy.set_eps_inference(1.0)
        explored = [context.policy.act(batch, jax.random.key(seed)).tolist() for seed in range(9)]
        assert len({tuple(actions) for actions in explored}) > 1
        context.policy.set_eps_inference(0.0)
        self.q_values.append(q_values)


def test_policies_of_a_result_do_not_change_with_later_training():
    learner = ReplayLearner(
        make("CartPole-v1", {"max_steps_in_episode": 50}),
        DQN(MLP(2, (16,))),
        ReplayConfig(
            num_envs=4, buffer_size=400, batch_size=16, samples_per_insert=4.0, start_timesteps=40
        ),
        TargetConfig(),
        optimizer=OptimizerConfig(learning_rate=0.01, learning_rate_schedule="linear"),
        exploration=Exploration(),
    )
    params = TrainerParams(max_epochs=3, epoch_num_steps=80, num_test_episodes=3)
    asks, batch = Asks(), observations(3)
    trainer = Trainer(learner, params, TrainerCallbacks(epoch_test_callback=asks))
    epochs = trainer.epochs()
    next(epochs), next(epochs)
    result = trainer.result()
    before = result.policy.q_values(batch), result.best_policy.q_values(batch)
    assert [record.epoch for record in epochs] == [2, 3]
    last = trainer.result()
    assert len(asks.q_values) == 4
    np.testing.assert_array_equal(result.policy.q_values(batch), before[0])
    np.testing.assert_array_equal(result.best_policy.q_values(batch), before[1])
    np.testing.assert_allclose(before[0], asks.q_values[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last.policy.q_values(batch), asks.q_values[3], rtol=1e-5, atol=1e-5)
    assert np.abs(last.policy.q_values(batch) - before[0]).max() > 1e-3
