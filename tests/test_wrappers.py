"""Wrappers of environments, against plain loops in Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.env_check import check_environment
from jaxrl_cb.envs import (
    action_repeat,
    clip_reward,
    frame_stack,
    functional,
    make,
    normalize_reward,
    scale_reward,
    sticky_actions,
    time_limit,
)
from jaxrl_cb.errors import ConfigError
from jaxrl_cb.learners import (
    Exploration,
    OptimizerConfig,
    ReplayConfig,
    ReplayLearner,
    TargetConfig,
)
from jaxrl_cb.trainer import Trainer, TrainerParams

ENDS = 7  # steps after which the counter terminates, if it is not cut before


@functools.cache
def counter(limit=None, terminates=True, num_actions=3):
    """Observes its age and the last action; the reward is 10 * age + action."""

    def reset(key):
        return jnp.int32(0), jnp.zeros((2,))

    def step(key, age, action):
        age = age + 1
        reward = (10 * age + action).astype(jnp.float32)
        obs = jnp.stack([age, action]).astype(jnp.float32)
        cut = age >= (limit or 10_000)
        return age, obs, reward, (age >= ENDS) & terminates, cut

    return functional(
        *(reset, step),
        num_actions=num_actions,
        time_limit=limit,
        reward_threshold=5.0,
        id="Counter",
    )


def play(environment, actions, num_envs=2, seed=0):
    """[T, E] results of given actions [T], as NumPy arrays, and the first observations [E]."""

    def run(key, actions):
        states, obs = environment.reset_all(jax.random.split(key, num_envs))

        def step(states, inputs):
            key, action = inputs
            keys = jax.random.split(key, 2 * num_envs).reshape(2, num_envs)
            result = environment.step_all(*keys, states, jnp.broadcast_to(action, (num_envs,)))
            return result.state, result

        keys = jax.random.split(jax.random.key(seed + 1), len(actions))
        return obs, jax.lax.scan(step, states, (keys, actions))[1]

    obs, result = jax.jit(run)(jax.random.key(seed), jnp.asarray(actions, jnp.int32))
    return jax.tree.map(np.asarray, result), np.asarray(obs)


ACTIONS = [1, 2, 0, 2, 1, 1, 0, 2, 2, 1, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("steps", [1, 3, 7, 9])
def test_time_limit_cuts_an_episode_and_keeps_its_last_observation(steps):
    result, _ = play(time_limit(counter(), steps), ACTIONS)
    age = 0
    for t, action in enumerate(ACTIONS):
        age += 1
        ended, cut = age == ENDS, age == steps and age != ENDS
        assert result.terminated[t].tolist() == [ended] * 2
        assert result.truncated[t].tolist() == [cut] * 2
        assert result.final_obs[t, 0].tolist() == [age, action]
        assert result.obs[t, 0].tolist() == ([0, 0] if ended or cut else [age, action])
        age = 0 if ended or cut else age


def test_time_limit_is_the_shorter_one_and_has_no_threshold():
    assert time_limit(counter(), 5).spec.time_limit == 5
    assert time_limit(counter(9), 5).spec.time_limit == 5
    assert time_limit(counter(4), 5).spec.time_limit == 4
    assert time_limit(counter(9), 5).spec.reward_threshold is None
    assert scale_reward(counter(9), 5).spec.reward_threshold == 5.0


@pytest.mark.parametrize("times", [1, 2, 3, 10])
def test_action_repeat_sums_rewards_and_stops_at_the_end(times):
    result, _ = play(action_repeat(counter(12), times), ACTIONS)
    age = 0
    for t, action in enumerate(ACTIONS):
        reward, ended = 0.0, False
        for _ in range(times):
            age += 1
            reward += 10 * age + action
            ended = age == ENDS
            if ended:
                break
        assert result.reward[t].tolist() == result.score[t].tolist() == [reward] * 2
        assert result.terminated[t].tolist() == [ended] * 2
        assert result.final_obs[t, 0].tolist() == [age, action]
        age = 0 if ended else age
        assert result.obs[t, 0, 0] == age
    assert action_repeat(counter(12), 5).spec.time_limit == 3


def test_action_repeat_keeps_a_truncation():
    result, _ = play(action_repeat(counter(5), 3), ACTIONS)
    assert result.truncated[:, 0].tolist() == [t % 2 == 1 for t in range(len(ACTIONS))]
    assert not result.terminated.any()


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_frame_stack_holds_the_latest_observations_of_this_episode(num_frames):
    result, obs = play(frame_stack(counter(5, terminates=False), num_frames), ACTIONS)
    assert obs.shape == (2, num_frames, 2)
    frames, age = [[0, 0]] * num_frames, 0
    for t, action in enumerate(ACTIONS):
        age += 1
        frames = [*frames, [age, action]][-num_frames:]
        assert result.final_obs[t, 0].tolist() == frames
        if age == 5:
            frames, age = [[0, 0]] * num_frames, 0
        assert result.obs[t, 0].tolist() == frames


def test_sticky_actions_repeat_the_action_that_was_taken_before():
    generator = np.random.default_rng(0)
    actions = generator.integers(0, 3, 400)
    num_envs = 16
    result, _ = play(sticky_actions(counter(50), 0.25), actions, num_envs)
    taken = result.final_obs[:, :, 1]
    repeats = chances = 0
    for env in range(num_envs):
        previous = None
        for t, action in enumerate(actions):
            assert taken[t, env] in (action, action if previous is None else previous)
            if previous is not None and previous != action:
                chances += 1
                repeats += taken[t, env] == previous
            ended = result.terminated[t, env] | result.truncated[t, env]
            previous = None if ended else taken[t, env]
    deviation = (0.25 * 0.75 / chances) ** 0.5
    assert abs(repeats / chances - 0.25) < 5 * deviation
    assert len(set(map(tuple, taken.T))) == num_envs  # a coin for each environment


@pytest.mark.parametrize(("probability", "expected"), [(0.0, "chosen"), (1.0, "first")])
def test_sticky_actions_at_the_ends(probability, expected):
    result, _ = play(sticky_actions(counter(50), probability), ACTIONS)
    first = [ACTIONS[t // ENDS * ENDS] for t in range(len(ACTIONS))]
    taken = result.final_obs[:, 0, 1].tolist()
    assert taken == (ACTIONS if expected == "chosen" else first)


def test_wrappers_of_the_reward_leave_the_score():
    plain, _ = play(counter(9), ACTIONS)
    for environment, learned in (
        (scale_reward(counter(9), 0.1), plain.reward * np.float32(0.1)),
        (clip_reward(counter(9)), np.clip(plain.reward, -1, 1)),
        (clip_reward(counter(9), 15, 40), np.clip(plain.reward, 15, 40)),
    ):
        result, _ = play(environment, ACTIONS)
        np.testing.assert_allclose(result.reward, learned)
        np.testing.assert_array_equal(result.score, plain.score)
    twice, _ = play(scale_reward(clip_reward(counter(9), 0, 20), 2.0), ACTIONS)
    np.testing.assert_allclose(twice.reward, 2 * np.clip(plain.reward, 0, 20))
    np.testing.assert_array_equal(twice.score, plain.score)


def test_normalize_reward_divides_by_the_deviation_of_all_discounted_returns():
    num_envs, gamma = 3, 0.9

    def reset(key):
        return jax.random.normal(key), jnp.zeros((1,))

    def step(key, level, action):
        reward = level + jax.random.normal(key)
        return level, jnp.zeros((1,)), reward, reward > 1.5, False

    environment = functional(reset, step, num_actions=2, time_limit=None)
    plain, _ = play(environment, [0] * 40, num_envs)
    result, _ = play(normalize_reward(environment, gamma), [0] * 40, num_envs)
    np.testing.assert_array_equal(result.score, plain.reward)
    seen, discounted = [], np.zeros(num_envs)
    for t in range(40):
        discounted = gamma * discounted + plain.reward[t]
        seen.extend(discounted)
        # the running variance begins as 1 with the weight of 1e-4 samples, as Gymnasium's does
        count = len(seen) + 1e-4
        mean = sum(seen) / count
        variance = (sum((x - mean) ** 2 for x in seen) + 1e-4 * (1 + mean**2)) / count
        np.testing.assert_allclose(result.reward[t], plain.reward[t] / variance**0.5, rtol=2e-4)
        discounted[result.terminated[t]] = 0.0


def test_wrapped_environments_are_equal_iff_made_alike():
    assert scale_reward("CartPole-v1", 0.1) == scale_reward("CartPole-v1", 0.1)
    assert scale_reward("CartPole-v1", 0.1) != scale_reward("CartPole-v1", 0.2)
    assert scale_reward("CartPole-v1", 0.1) != scale_reward("Acrobot-v1", 0.1)
    assert time_limit("CartPole-v1", 100) != action_repeat("CartPole-v1", 100)
    assert time_limit("CartPole-v1", 100).spec.id == "time_limit(CartPole-v1)"


def test_settings_that_cannot_work_are_refused():
    for wrong in (
        lambda: sticky_actions("CartPole-v1", 1.5),
        lambda: action_repeat("CartPole-v1", 0),
        lambda: time_limit("CartPole-v1", 0),
        lambda: frame_stack("CartPole-v1", 0),
        lambda: scale_reward("CartPole-v1", float("inf")),
        lambda: clip_reward("CartPole-v1", 1, -1),
        lambda: normalize_reward("CartPole-v1", 2.0),
    ):
        with pytest.raises(ConfigError):
            wrong()


WRAPPERS = {
    "sticky_actions": sticky_actions,
    "action_repeat": lambda env: action_repeat(env, 3),
    "time_limit": lambda env: time_limit(env, 40),
    "frame_stack": lambda env: frame_stack(env, 2),
    "scale_reward": lambda env: scale_reward(env, 0.1),
    "clip_reward": clip_reward,
    "normalize_reward": normalize_reward,
    "all": lambda env: frame_stack(
        normalize_reward(time_limit(action_repeat(sticky_actions(env), 2), 30)), 3
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_environment_conforms(name):
    check_environment(WRAPPERS[name](make("CartPole-v1")), num_envs=16)


# --- a truncated episode keeps its value ---


class Table:
    """A network of one number per action, that does not depend on what it sees."""

    def init(self, key, obs):
        return {"q": jnp.zeros((1,))}

    def apply(self, params, obs):
        return params["q"]


def constant(limit):
    """A reward of 1 for ever: worth 1 / (1 - gamma), however often a time limit cuts it."""

    def reset(key):
        return jnp.int32(0), jnp.zeros((1,))

    def step(key, age, action):
        return age + 1, jnp.zeros((1,)), 1.0, False, age + 1 >= (limit or 10_000)

    return functional(reset, step, num_actions=1, time_limit=limit)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("environment", "value", "score"),
    [
        (lambda: time_limit(constant(None), 4), 1 / (1 - 0.5), 4),
        (lambda: time_limit(constant(9), 4), 1 / (1 - 0.5), 4),
        (lambda: action_repeat(constant(6), 3), 3 / (1 - 0.5), 6),
        (lambda: frame_stack(constant(4), 2), 1 / (1 - 0.5), 4),
        (lambda: sticky_actions(constant(4)), 1 / (1 - 0.5), 4),
        (lambda: scale_reward(constant(4), 5.0), 5 / (1 - 0.5), 4),
    ],
)
def test_a_truncation_is_not_death_in_any_wrapper(environment, value, score, n_step):
    learner = ReplayLearner(
        environment(),
        DQN(Table()),
        ReplayConfig(
            num_envs=2,
            buffer_size=400,
            batch_size=32,
            samples_per_insert=64.0,
            start_timesteps=200,
            n_step=n_step,
        ),
        TargetConfig(gamma=0.5, tau=0.1),
        optimizer=OptimizerConfig(learning_rate=0.05, learning_rate_schedule="linear"),
        exploration=Exploration(),
    )
    params = TrainerParams(max_epochs=1, epoch_num_steps=600, num_test_episodes=2)
    result = Trainer(learner, params).run()
    found = float(result.state.params["q"][0, 0])
    assert found == pytest.approx(value, rel=0.02)  # death at the cut: at least an eighth less
    for record in result.history:  # returns are in the environment's own units
        assert record.returns.tolist() == [[score] * 2]
    assert result.history[1].train_return.tolist() == [score]
