"""The online learner: what rollouts are learned from, how often, and what is refused."""

import jax
import numpy as np
import pytest
import tiny
from jax import lax

import jaxrl_cb
from jaxrl_cb.algorithms import DQN, PQN
from jaxrl_cb.config import common_settings, resolve
from jaxrl_cb.envs import functional, make
from jaxrl_cb.errors import ConfigError, ConfigTypeError, NonFiniteWarning
from jaxrl_cb.learners import Exploration, OnlineConfig, OnlineLearner, ReplayLearner
from jaxrl_cb.learners.online import Samples
from jaxrl_cb.networks import MLP
from jaxrl_cb.ops.returns import lambda_returns
from jaxrl_cb.trainer import Trainer, TrainerParams, memory

GAMMA, TD_LAMBDA = 0.9, 0.65


def by_hand(rewards, next_values, terminated, cut, gamma=GAMMA, td_lambda=TD_LAMBDA):
    """The returns of one environment's rollout, from its end."""
    later, returns = None, []
    for reward, value, ends, is_cut in reversed(
        list(zip(rewards, next_values, terminated, cut, strict=True))
    ):
        if ends:
            later = reward
        elif is_cut or later is None:
            later = reward + gamma * value
        else:
            later = reward + gamma * ((1 - td_lambda) * value + td_lambda * later)
        returns.append(later)
    return returns[::-1]


@pytest.mark.parametrize("td_lambda", [0.0, 0.65, 1.0])
def test_returns_are_those_of_a_loop(td_lambda):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 12, 5)).astype(np.float32)
    terminated, cut = rng.random((2, 12, 5)) < 0.2
    cut[-1] = True
    numbers = {"gamma": np.float32(GAMMA), "td_lambda": np.float32(td_lambda)}
    found = lambda_returns(rewards, values, terminated=terminated, cut=cut, **numbers)
    for env in range(5):
        own = (x[:, env].tolist() for x in (rewards, values, terminated, cut))
        np.testing.assert_allclose(found[:, env], by_hand(*own, td_lambda=td_lambda), rtol=2e-5)


def test_a_return_of_lambda_one_is_the_discounted_sum():
    rewards = np.ones((3, 1), np.float32)
    flags = np.zeros((3, 1), bool)
    cut, value = np.array([[0], [0], [1]], bool), np.full((3, 1), 100.0, np.float32)
    numbers = {"gamma": np.float32(0.5), "td_lambda": np.float32(1.0)}
    found = lambda_returns(rewards, value, terminated=flags, cut=cut, **numbers)
    np.testing.assert_allclose(found[:, 0], [1.75 + 12.5, 1.5 + 25, 1 + 50])


# --- what a rollout becomes ---

LENGTH, ENVS = 12, 2


class Table:
    """Two action values: the observation itself (times a parameter), and -100."""

    def init(self, key, obs):
        return np.float32(1.0)

    def apply(self, params, obs):
        return np.array([1.0, 0.0], np.float32) * params * obs[0] + np.array([0, -100], np.float32)


def counter(limit, *, ends="truncated", declared=None):
    """Observations count on through all episodes of an environment; the reward is their half."""

    def reset(key):
        start = jax.random.randint(key, (), 1, 50) * 100
        return (start, np.int32(0)), _obs(start)

    def step(key, state, action):
        count, age = state[0] + 1, state[1] + 1
        over = age == limit
        ended, other = over, over & False
        pair = (ended, other) if ends == "terminated" else (other, ended)
        return (count, age), _obs(count), count.astype(np.float32) / 2, *pair

    return functional(reset, step, num_actions=2, time_limit=declared or limit, id="counter")


def _obs(count):
    return count.astype(np.float32)[None]


def learner_of(environment, **sizes):
    sizes = {"rollout_length": LENGTH, "num_minibatches": 4, "update_epochs": 3} | sizes
    online = OnlineConfig(td_lambda=TD_LAMBDA, **sizes)
    return OnlineLearner(
        *(environment, PQN(Table()), ENVS, online, GAMMA),
        exploration=Exploration(epsilon_start=0.0, epsilon_final=0.0),
    )


def gathered(learner):
    state = jax.jit(learner.init)(np.uint32(3), *learner.initial_values(1000))

    @jax.jit
    def run(state):
        state, metrics, rows, final = learner._gathered(state)
        return metrics, rows, final, learner._samples(state, rows, final)[1]

    return run(state)


@pytest.mark.parametrize(
    ("limit", "ends"), [(5, "truncated"), (5, "terminated"), (40, "truncated")]
)
def test_targets_of_a_rollout_are_those_of_a_loop(limit, ends):
    """Of a truncated episode what comes after is worth what its true final observation is."""
    _, rows, final, samples = gathered(learner_of(counter(limit, ends=ends)))
    assert final.obs.shape[0] == -(-LENGTH // min(limit, LENGTH))
    targets = np.asarray(samples.target).reshape(LENGTH, ENVS)
    assert np.all(samples.weight == 1)
    for env in range(ENVS):
        obs = np.asarray(rows.obs)[:, env, 0]
        over = (np.arange(LENGTH) + 1) % limit == 0
        # The action leads to the next count, whatever the environment shows after a reset.
        next_values, rewards = obs + 1, (obs + 1) / 2
        np.testing.assert_array_equal(rows.reward[:, env], rewards)
        assert np.all(np.diff(obs)[~over[:-1]] == 1)
        assert np.all(np.diff(obs)[over[:-1]] != 1)
        dead = over if ends == "terminated" else np.zeros(LENGTH, bool)
        cut = over if ends == "truncated" else np.zeros(LENGTH, bool)
        expected = by_hand(*(x.tolist() for x in (rewards, next_values, dead, cut)))
        np.testing.assert_allclose(targets[:, env], expected, rtol=1e-5)


def test_a_second_truncation_within_the_declared_limit_has_no_weight():
    """Limit 5 is declared, every third step is truncated: rows 2, 5, 8, 11, of blocks 0 to 4, ...

    Blocks of 5 rows are 0-4, 5-9, 10-11: row 8 is the second of its block. It is left out, and the
    rows before it look as far as its own value.
    """
    learner = learner_of(counter(3, declared=5))
    metrics, rows, _, samples = gathered(learner)
    assert metrics.num_masked == ENVS
    weights = np.asarray(samples.weight).reshape(LENGTH, ENVS)
    np.testing.assert_array_equal(weights[:, 0], [1.0] * 8 + [0.0] + [1.0] * 3)
    targets = np.asarray(samples.target).reshape(LENGTH, ENVS)
    for env in range(ENVS):
        obs = np.asarray(rows.obs)[:, env, 0]
        over = (np.arange(LENGTH) + 1) % 3 == 0
        cut = over | (np.arange(LENGTH) == 7)
        numbers = ((obs + 1) / 2, obs + 1, np.zeros(LENGTH, bool), cut)
        expected = np.array(by_hand(*(x.tolist() for x in numbers)))
        known = weights[:, env] > 0
        np.testing.assert_allclose(targets[known, env], expected[known], rtol=1e-5)


def test_what_has_no_weight_is_not_learned_from():
    environment = make("CartPole-v1")
    learner = OnlineLearner(
        *(environment, PQN(MLP(2, (8,))), 4),
        OnlineConfig(rollout_length=4, num_minibatches=1, update_epochs=1),
        GAMMA,
    )
    state = jax.jit(learner.init)(np.uint32(3), *learner.initial_values(1000))
    rng = np.random.default_rng(0)
    obs, target = rng.normal(size=(16, 4)), rng.normal(size=16)
    weight = np.where(np.arange(16) < 8, 0.0, rng.random(16))
    obs, target, weight = (x.astype(np.float32) for x in (obs, target, weight))
    action = rng.integers(0, 2, 16).astype(np.int32)
    learn = jax.jit(learner._learn)

    after, (loss, _) = learn(state, Samples(obs, action, target, weight))
    q = np.asarray(jax.vmap(learner.algorithm.q_values, (None, 0, None))(state.params, obs, None))
    error = q[np.arange(16), action] - target
    assert float(loss[0]) == pytest.approx(float(np.mean(weight * error**2 / 2)), rel=1e-4)
    other = np.where(weight[:, None] == 0, 9, obs).astype(np.float32)
    same, _ = learn(state, Samples(other, action, target, weight))
    jax.tree.map(np.testing.assert_array_equal, same.params, after.params)
    changed, _ = learn(state, Samples(other, action, target, np.ones_like(weight)))
    unlike = zip(*map(jax.tree.leaves, (changed.params, after.params)), strict=True)
    assert all((np.asarray(a) != b).any() for a, b in unlike)


def test_every_sample_is_learned_from_as_often_as_there_are_epochs(monkeypatch):
    seen = []

    class Spy(PQN):
        def loss(self, params, obs, action, target, key):
            jax.debug.callback(lambda x: seen.append(float(x)), obs[0])
            return super().loss(params, obs, action, target, key)

    learner = learner_of(counter(40))
    learner = OnlineLearner(
        learner.environment,
        Spy(Table()),
        ENVS,
        learner.online,
        GAMMA,
        exploration=learner.exploration,
    )
    state = jax.jit(learner.init)(np.uint32(3), *learner.initial_values(1000))
    state, metrics = jax.block_until_ready(jax.jit(learner.step)(state))
    jax.effects_barrier()
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == LENGTH * ENVS
    assert np.all(counts == 3)
    assert state.num_updates == 12 == learner.num_updates(1)
    assert metrics.num_sound_steps == LENGTH


def test_epsilon_falls_within_a_rollout():
    settings = {"rollout_length": 10, "num_minibatches": 4, "num_envs": 4, "hidden_sizes": (8,)}
    settings |= {"epsilon_decay_steps": 80, "epsilon_start": 1.0, "epsilon_final": 0.2}
    learner = resolve(None, "pqn", settings).build_learner(make("CartPole-v1"))
    state = jax.jit(learner.init)(np.uint32(0), *learner.initial_values(1000))
    state, _ = jax.jit(learner.step)(state)
    assert state.epsilon.training.offset == 40


# --- in a run ---


def settings_of(**changes):
    settings = {k: v for k, v in tiny.TINY.items() if k not in ("batch_size", "buffer_size")}
    del settings["start_timesteps"]
    own = {"rollout_length": 10, "num_minibatches": 4, "update_epochs": 2}
    return settings | tiny.SHORT | own | changes


def test_a_run_is_the_scan_of_its_steps_and_counts_exactly():
    settings = settings_of(epoch_num_steps=80, max_epochs=3, chunk_num_steps=40)
    result = jaxrl_cb.train("CartPole-v1", "pqn", seed=5, **settings)
    assert [r.env_step for r in result.history] == [0, 80, 160, 240]
    assert [r.num_updates for r in result.history] == [0, 16, 32, 48]
    config = resolve("CartPole-v1", "pqn", {k: v for k, v in settings.items() if k != "verbose"})
    learner = config.build_learner(make("CartPole-v1", config.env.env_kwargs))

    def run(seed, initial):
        state = learner.init(seed, *initial)
        return lax.scan(lambda s, _: (learner.step(s)[0], None), state, length=6)[0].params

    with jax.numpy_dtype_promotion("standard"):
        params = jax.jit(run)(np.uint32(5), learner.initial_values(240))
    for ours, own in zip(
        jax.tree.leaves(result.policy.params), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(ours[0], own, rtol=1e-4, atol=1e-6)


def test_seeds_in_one_batched_program_are_those_one_by_one():
    settings = settings_of(max_epochs=2, num_seeds=2, epsilon_decay_steps=50)
    together, apart = (
        jaxrl_cb.train("CartPole-v1", "pqn", vectorize_seeds=vectorize, **settings)
        for vectorize in (True, False)
    )
    ours, own = (jax.tree.leaves(result.state.params) for result in (together, apart))
    for x, y in zip(ours, own, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_a_reward_of_nan_is_told_with_its_step():
    def reset(key):
        return np.int32(0), np.zeros(1, np.float32)

    def step(key, age, action):
        age = age + 1
        bad = jax.numpy.where(age == 27, np.nan, 0.0).astype(np.float32)
        return age, np.zeros(1, np.float32), bad, age > 90, age < 0

    environment = functional(reset, step, num_actions=2, time_limit=100, id="bad")
    online = OnlineConfig(rollout_length=10, num_minibatches=1, update_epochs=1)
    learner = OnlineLearner(environment, PQN(MLP(2, (4,))), 2, online)
    params = TrainerParams(max_epochs=2, epoch_num_steps=40, num_test_episodes=2, debug=True)
    with pytest.warns(NonFiniteWarning) as warned:
        result = Trainer(learner, params).run()
    text = str(warned[0].message)
    assert "first at environment step 54 (vector step 27 of 2 environments)" in text
    assert "run again, in rollout 1 of the chunk's 2" in text
    assert result.diverged


def test_policies_begin_others_and_are_copied(tmp_path):
    settings = settings_of(max_epochs=1)
    first = jaxrl_cb.train("CartPole-v1", "pqn", run_dir=tmp_path / "run", **settings)
    again = jaxrl_cb.train(
        "CartPole-v1", "pqn", warm_start=first.policy, **(settings | {"max_epochs": 0})
    )
    for ours, own in zip(
        jax.tree.leaves(again.policy.params), jax.tree.leaves(first.policy.params), strict=True
    ):
        np.testing.assert_array_equal(ours, own)
    best = jaxrl_cb.train("CartPole-v1", "dqn", warm_start=first.policy, **tiny.TINY, max_epochs=0)
    assert best.policy.num_seeds == 1


# --- what is refused ---


def test_learners_want_algorithms_of_their_own_kind():
    environment = make("CartPole-v1")
    with pytest.raises(ConfigTypeError, match=r"a replay and a target network; .* PQN\(\.\.\.\)"):
        OnlineLearner(environment, DQN(MLP(2)))
    with pytest.raises(ConfigTypeError, match="cannot target; expected for example DQN"):
        ReplayLearner(environment, PQN(MLP(2)))
    with pytest.raises(ConfigTypeError, match="cannot init; expected for example PQN"):
        OnlineLearner(environment, PQN)
    with pytest.raises(ConfigError, match=r"num_minibatches=3 .* 32 samples .* use 2"):
        OnlineLearner(environment, PQN(MLP(2)), 4, OnlineConfig(8, 3))


def test_settings_of_a_replay_are_refused_and_sizes_follow():
    with pytest.raises(ConfigError, match="buffer_size=5 is no setting of 'pqn', which has loss"):
        resolve("CartPole-v1", "pqn", {"buffer_size": 5})
    with pytest.raises(ConfigError, match=r"td_lambda=0\.5 is no setting of 'dqn'"):
        resolve("CartPole-v1", "dqn", {"td_lambda": 0.5})
    config = resolve(None, "pqn", {"num_envs": 6, "rollout_length": 5})
    assert config.online.num_minibatches == 30
    assert config.trainer.epoch_num_steps % 30 == 0
    learner = config.build_learner(make("CartPole-v1"))
    with pytest.raises(ConfigError, match="num_envs 6 x rollout_length 5"):
        Trainer(learner, TrainerParams(epoch_num_steps=31))
    flat = resolve("CartPole-v1", "dqn", {"gamma": 0.5}).flat()
    taken = resolve(None, "pqn", common_settings(flat, "dqn", "pqn"))
    assert (taken.target.gamma, taken.replay.num_envs) == (0.5, 128)


def test_a_run_that_does_not_fit_is_told_what_to_lower():
    online = OnlineConfig(rollout_length=4, num_minibatches=1)
    learner = OnlineLearner(make("Breakout-MinAtar"), PQN(MLP(3, (4,))), 4096, online)
    params = TrainerParams(epoch_num_steps=4096 * 4, num_seeds=2)
    needed = memory.estimate(learner, params)

    def refused(limit):
        return memory._advice(memory._Run(learner, params), limit)

    assert "num_seeds from 2 to 1" in refused(needed.total * 3 // 4)
    assert "num_envs from 4,096 to 512" in refused(needed.total // 5)
    assert "lower rollout_length, or use a smaller network" in refused(100)
