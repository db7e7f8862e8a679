"""Environments: what `make` accepts and refuses, and that stepping is faithful to the outside."""

import functools
import os
import socket
import subprocess
import sys

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole, EnvParams
from gymnax.environments.spaces import Discrete

from jaxrl_cb.envs import Environment, functional, make, time_limit
from jaxrl_cb.errors import ConfigError, ConfigTypeError, UnknownEnvError, UnsupportedEnvError

CONTINUOUS = {
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "PointRobot-misc",
    "Reacher-misc",
    "Swimmer-misc",
}


@functools.cache
def made(env_id):
    return make(env_id)


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


# --- what `make` accepts ---


@pytest.mark.parametrize("env_id", gymnax.registered_envs)
def test_every_gymnax_environment_conforms_or_is_refused(env_id):
    if env_id in CONTINUOUS or env_id == "MNISTBandit-bsuite":
        with pytest.raises(UnsupportedEnvError, match=env_id):
            make(env_id)
        return
    environment = made(env_id)
    spec, key = environment.spec, jax.eval_shape(lambda: jax.random.key(0))
    state, obs = jax.eval_shape(environment.reset, key)
    action = jax.ShapeDtypeStruct((), jnp.int32)
    result = jax.eval_shape(environment.step, key, key, state, action)
    assert (obs.shape, obs.dtype.name) == (spec.obs_shape, spec.obs_dtype)
    assert (spec.id, spec.num_actions > 1, spec.time_limit > 0) == (env_id, True, True)
    assert shapes(result.state) == shapes(state)  # a loop can carry it
    assert shapes(result.obs) == shapes(result.final_obs) == shapes(obs)
    assert shapes(result.score) == shapes(result.reward)
    flags = [(x.shape, x.dtype.name) for x in result[2:5]]
    assert flags == [((), "float32"), ((), "bool"), ((), "bool")]


@pytest.mark.parametrize(
    ("env_id", "threshold", "time_limit", "num_actions"),
    [  # as Gymnasium registers them
        ("CartPole-v1", 475.0, 500, 2),
        ("Acrobot-v1", -100.0, 500, 3),
        ("MountainCar-v0", -110.0, 200, 3),
        ("Catch-bsuite", None, 1000, 3),
    ],
)
def test_facts_of_an_environment(env_id, threshold, time_limit, num_actions):
    spec = made(env_id).spec
    assert spec.reward_threshold == threshold
    assert (spec.time_limit, spec.num_actions) == (time_limit, num_actions)
    if threshold is not None:
        assert gymnasium.spec(env_id).reward_threshold == threshold
        assert gymnasium.spec(env_id).max_episode_steps == time_limit


def test_env_kwargs_set_fields_of_the_parameters():
    environment = make("CartPole-v1", {"max_steps_in_episode": 7, "gravity": 0.0})
    assert environment.spec.time_limit == 7
    assert made("CartPole-v1").spec.time_limit == 500


def test_env_kwargs_are_passed_to_the_constructor():
    spec = make("Catch-bsuite", {"rows": 6, "columns": 3, "max_steps_in_episode": 50}).spec
    assert (spec.obs_shape, spec.time_limit) == ((6, 3), 50)
    assert make("DeepSea-bsuite", {"size": 4}).spec.time_limit == 4  # it follows from the size


def test_object_is_taken_with_its_default_parameters():
    spec = make(CartPole()).spec
    assert (spec.id, spec.time_limit, spec.reward_threshold) == ("CartPole-v1", 500, 475.0)


def test_pair_is_an_object_and_its_parameters():
    assert make((CartPole(), EnvParams(max_steps_in_episode=9))).spec.time_limit == 9
    assert make((CartPole(), None)).spec.time_limit == 500


def test_environment_is_taken_as_it_is():
    environment = made("CartPole-v1")
    assert make(environment) is environment


# --- what `make` refuses ---


@pytest.mark.parametrize(
    ("env_id", "nearest"),
    [("CartPol-v1", "CartPole-v1"), ("acrobot-v1", "Acrobot-v1"), ("Breakout", "Breakout-MinAtar")],
)
def test_unknown_id_is_refused_with_the_nearest_one(env_id, nearest):
    with pytest.raises(UnknownEnvError, match=f"{env_id!r}.*did you mean {nearest!r}"):
        make(env_id)


def test_unknown_id_near_nothing_gets_no_suggestion():
    with pytest.raises(UnknownEnvError) as caught:
        make("zzzzzz")
    assert "did you mean" not in str(caught.value)


def test_unknown_parameter_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"'max_steps' \(did you mean 'max_steps_in_episode'"):
        make("CartPole-v1", {"max_steps": 5})
    with pytest.raises(ConfigError, match=r"'row' \(did you mean 'rows'"):
        make("Catch-bsuite", {"row": 5})


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_continuous_actions_are_refused(env_id):
    with pytest.raises(UnsupportedEnvError, match=rf"{env_id}.*Box.*Discrete"):
        make(env_id)


def test_data_set_environment_is_refused_before_it_is_made_or_downloads(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("it was made")

    registry = gymnax.registration._registry
    monkeypatch.setitem(registry, "MNISTBandit-bsuite", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    with pytest.raises(UnsupportedEnvError, match=r"MNISTBandit-bsuite.*downloads"):
        make("MNISTBandit-bsuite")


@pytest.mark.parametrize("env", [None, 3, 1.5, True, (CartPole(),), (CartPole(), None, None)])
def test_what_is_no_environment_is_refused(env):
    with pytest.raises(ConfigTypeError, match="env"):
        make(env)


def test_object_without_a_method_is_refused_by_its_name():
    with pytest.raises(UnsupportedEnvError, match=r"object without a method 'reset'"):
        make(object())


def test_env_kwargs_without_an_id_are_refused():
    with pytest.raises(ConfigError, match=r"\(env, params\)"):
        make(CartPole(), {"gravity": 1.0})


class OldStep(CartPole):
    """As environments were before gymnax 1.0: one `done`."""

    def step(self, key, state, action, params=None):
        obs, state, reward, terminated, _, info = super().step(key, state, action, params)
        return obs, state, reward, terminated, info


class NoFinalObservation(CartPole):
    def step(self, key, state, action, params=None):
        *result, _ = super().step(key, state, action, params)
        return *result, {}


@pytest.mark.parametrize(("cls", "number"), [(OldStep, 5), (NoFinalObservation, 6)])
def test_step_without_a_final_observation_is_refused(cls, number):
    with pytest.raises(
        UnsupportedEnvError, match=rf"{number} values; expected 6.*final_observation"
    ):
        make(cls())


def simple(step=None, state=None, obs=None, **settings):
    """An environment of two functions; `step` gets (state, obs) and gives (state, obs)."""
    state = {"place": np.zeros(2, np.float32), "time": np.int32(0)} if state is None else state
    obs = np.zeros(1, np.float32) if obs is None else obs
    step = step or (lambda state, obs: (state, obs))

    def reset(key):
        return jax.tree.map(jnp.asarray, (state, obs))

    def full_step(key, state, action):
        return *step(state, jnp.asarray(obs)), 1.0, False, False

    return functional(reset, full_step, num_actions=2, time_limit=5, **settings)


def test_functional_step_of_another_number_of_values_is_refused():
    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action):
        return state, jnp.zeros(1), 0.0, False

    with pytest.raises(UnsupportedEnvError, match=r"'four' returned 4 values; expected 5"):
        functional(reset, step, num_actions=2, time_limit=5, id="four")


@pytest.mark.parametrize("shape", [(3,), (2, 2), (), (1,)])
def test_state_whose_shape_changes_is_refused_by_the_name_of_the_leaf(shape):
    # (3,) and (2, 2) fit nothing; () and (1,) would quietly be repeated to fit
    def grow(state, obs):
        return {**state, "place": jnp.zeros(shape, jnp.float32)}, obs

    with pytest.raises(UnsupportedEnvError, match="place"), jax.numpy_rank_promotion("allow"):
        simple(grow)


def test_observation_whose_shape_changes_is_refused():
    with pytest.raises(UnsupportedEnvError, match=r"obs.*float32\[2\].*float32\[1\]"):
        simple(lambda state, obs: (state, jnp.zeros(2)))


def test_state_that_turns_from_integer_to_float_is_refused_by_the_name_of_the_leaf():
    def drift(state, obs):
        return {**state, "time": state["time"].astype(jnp.float32) + 0.5}, obs

    with (
        pytest.raises(UnsupportedEnvError, match="time"),
        jax.numpy_dtype_promotion("standard"),  # as users have it
    ):
        simple(drift)


def test_state_of_another_structure_is_refused():
    with pytest.raises(UnsupportedEnvError, match="structure"):
        simple(lambda state, obs: ({"place": state["place"]}, obs))


class Growing(CartPole):
    """A gymnax environment whose state changes its shape."""

    def step_env(self, key, state, action, params):
        obs, state, *rest = super().step_env(key, state, action, params)
        return obs, state.replace(theta=jnp.zeros(3)), *rest


def test_gymnax_state_whose_shape_changes_is_refused_by_the_name_of_the_leaf():
    with pytest.raises(UnsupportedEnvError, match="theta"):
        make(Growing())


# --- equality: what compiled programs are found by ---


def test_environments_of_equal_id_and_parameters_are_equal():
    a, b = make("CartPole-v1", {"gravity": 5.0}), make("CartPole-v1", {"gravity": 5.0})
    assert a == b
    assert hash(a) == hash(b)
    assert make("CartPole-v1", {}) == made("CartPole-v1")
    several = {"gravity": 5.0, "max_steps_in_episode": 9}
    assert make("CartPole-v1", several) == make("CartPole-v1", dict(reversed(several.items())))
    assert a is b  # traced once


def test_environments_of_other_parameters_or_ids_differ():
    all_different = [
        made("CartPole-v1"),
        make("CartPole-v1", {"gravity": 5.0}),
        make("CartPole-v1", {"max_steps_in_episode": 499}),
        make("Catch-bsuite"),
        make("Catch-bsuite", {"rows": 9}),
        made("Acrobot-v1"),
        make(CartPole()),
    ]
    for i, a in enumerate(all_different):
        assert [a == b for b in all_different] == [i == j for j in range(len(all_different))]


def test_objects_of_the_same_name_are_never_equal():
    class Backwards(CartPole):
        """Says that it is CartPole-v1, but pushes the other way."""

        def step_env(self, key, state, action, params):
            return super().step_env(key, state, 1 - action, params)

    one, other, backwards = CartPole(), CartPole(), Backwards()
    assert one.name == other.name == backwards.name
    assert make(one) == make(one)
    assert hash(make(one)) == hash(make(one))
    assert len({make(one), make(other), make(backwards), made("CartPole-v1")}) == 4
    assert make((one, EnvParams(gravity=1.0))) != make(one)
    assert make((one, EnvParams(gravity=1.0))) == make((one, EnvParams(gravity=1.0)))


def test_functions_are_told_apart_even_if_they_share_a_name():
    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def maker():
        def step(key, state, action):
            return state, jnp.zeros(1), 1.0, False, False

        return step

    step, same_code = maker(), maker()
    build = functools.partial(functional, reset, num_actions=2, time_limit=5, id="same")
    assert build(step) == build(step)
    assert hash(build(step)) == hash(build(step))
    assert build(step) != build(same_code)
    assert build(step) != functional(reset, step, num_actions=2, time_limit=6, id="same")


def test_place_of_a_deleted_object_in_memory_is_not_mistaken_for_it():
    assert len({make(CartPole()) for _ in range(10)}) == 10  # none is held but by its environment


def test_environment_differs_from_anything_else():
    assert made("CartPole-v1") != "CartPole-v1"


# --- stepping ---


@functools.cache
def runner(environment, num_steps):
    """Steps with given actions; -1 lets a hand-made rule balance the pole."""

    def choose(obs, action):
        if environment.spec.id != "CartPole-v1":
            return action
        lean = 0.1 * obs[0] + 0.3 * obs[1] + 3.0 * obs[2] + obs[3]
        return jnp.where(action < 0, (lean > 0).astype(jnp.int32), action)

    def run(key, actions):
        def step(carry, action):
            key, state, obs = carry
            key, key_step, key_reset = jax.random.split(key, 3)
            result = environment.step(key_step, key_reset, state, choose(obs, action))
            _, fresh_obs = environment.reset(key_reset)
            return (key, result.state, result.obs), (obs, result._replace(state=None), fresh_obs)

        key, key_reset = jax.random.split(key)
        state, obs = environment.reset(key_reset)
        return jax.lax.scan(step, (key, state, obs), actions)[1]

    return jax.jit(run)


LENGTHS = {"CartPole-v1": 1100, "Acrobot-v1": 1100, "MountainCar-v0": 450}


def played(env_id, actions, seed=0):
    """(obs before each step, result, observation of the reset that would have been)."""
    actions = np.broadcast_to(np.asarray(actions, np.int32), (LENGTHS[env_id],))
    run = runner(made(env_id), LENGTHS[env_id])
    return actions, *jax.device_get(run(jax.random.key(seed), actions))


def gymnasium_states(env_id, obs):
    """Gymnasium's state behind observations: Acrobot shows cosines and sines of its angles."""
    obs = obs.astype(np.float64)
    if env_id != "Acrobot-v1":
        return obs
    angles = [np.arctan2(obs[:, 1], obs[:, 0]), np.arctan2(obs[:, 3], obs[:, 2])]
    return np.stack([*angles, obs[:, 4], obs[:, 5]], axis=1)


@pytest.mark.parametrize(
    ("env_id", "tolerance"), [("CartPole-v1", 1e-5), ("MountainCar-v0", 1e-5), ("Acrobot-v1", 1e-4)]
)
def test_every_step_is_gymnasiums(env_id, tolerance):
    num_actions = made(env_id).spec.num_actions
    given = np.random.default_rng(0).integers(0, num_actions, LENGTHS[env_id])
    actions, obs, result, _ = played(env_id, given)
    outside = gymnasium.make(env_id).unwrapped
    outside.reset(seed=0)
    for t, state in enumerate(gymnasium_states(env_id, obs)):
        outside.state = state
        outside.steps_beyond_terminated = None
        final_obs, reward, terminated, _, _ = outside.step(int(actions[t]))
        np.testing.assert_allclose(result.final_obs[t], final_obs, atol=tolerance, rtol=0)
        assert (float(result.reward[t]), bool(result.terminated[t])) == (reward, terminated)
    outside.close()
    if env_id == "CartPole-v1":
        assert result.terminated.sum() > 20  # falls are among what was compared


@pytest.mark.parametrize(
    ("env_id", "action", "time_limit"),
    # the pole is balanced, the car and the arm are left alone: none of them ends by itself
    [("CartPole-v1", -1, 500), ("Acrobot-v1", 1, 500), ("MountainCar-v0", 1, 200)],
)
def test_time_limit_truncates_at_exactly_its_step_and_does_not_terminate(
    env_id, action, time_limit
):
    _, _, result, _ = played(env_id, action)
    assert not result.terminated.any()
    ends = np.flatnonzero(result.truncated) + 1
    assert ends.tolist() == [time_limit, 2 * time_limit]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0"])
def test_observation_after_an_end_is_the_new_episodes_and_the_final_one_the_old_ones(env_id):
    given = np.random.default_rng(1).integers(0, 2, LENGTHS[env_id])
    _, obs, result, fresh_obs = played(env_id, given, seed=1)
    ended = result.terminated | result.truncated
    assert ended.any()
    np.testing.assert_array_equal(result.obs[ended], fresh_obs[ended])
    assert np.all(np.any(result.obs[ended] != result.final_obs[ended], axis=1))
    np.testing.assert_array_equal(result.obs[~ended], result.final_obs[~ended])
    np.testing.assert_array_equal(obs[1:], result.obs[:-1])
    # the final observation is one step away from the last one of the old episode, not from a reset
    step_sizes = np.abs(result.final_obs - obs).max(axis=1)
    assert step_sizes[ended].max() <= 3 * step_sizes[~ended].max()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere a branch would wait")
@pytest.mark.parametrize("outer_limit", [None, 7])
def test_resets_are_computed_only_when_an_episode_of_some_environment_is_done(outer_limit):
    """Episodes of 2, 3 and 4 steps; or of 5, 8 and 20 with a time limit of 7 around them."""
    resets = []

    def reset(key):
        jax.debug.callback(lambda _: resets.append(1), key[()])
        return (jnp.int32(0), jnp.int32(0)), jnp.zeros(2)

    def step(key, state, action):
        age, length = state
        age, length = age + 1, jnp.where(length == 0, action, length)
        never = jnp.bool_(False)
        return (age, length), jnp.full(2, age, jnp.float32), jnp.float32(1), age >= length, never

    environment = functional(reset, step, num_actions=9, time_limit=20)
    lengths = [2, 3, 4]
    if outer_limit:
        environment, lengths = time_limit(environment, outer_limit), [5, 8, 20]
    lengths = jnp.array(lengths)
    keys = jax.random.split(jax.random.key(0), 3)
    states, _ = environment.reset_all(keys)
    step_all = jax.jit(environment.step_all)
    counts, ages = [], []
    for _ in range(10):
        jax.effects_barrier()
        resets.clear()
        result = step_all(keys, keys, states, lengths)
        states = result.state
        ages.append(result.obs[:, 0].astype(int).tolist())
        jax.effects_barrier()
        counts.append(len(resets))
    # by a plain loop over three counters
    expected, age = [], [0, 0, 0]
    cuts = [min(length, outer_limit or length) for length in lengths.tolist()]
    for row in ages:
        age = [a + 1 for a in age]
        done = [a == cut for a, cut in zip(age, cuts, strict=True)]
        age = [0 if d else a for a, d in zip(age, done, strict=True)]
        assert row == age
        expected.append(3 if any(done) else 0)
    assert counts == expected
    assert set(counts) == {0, 3}


def test_stepping_is_gymnaxs_own_with_the_keys_that_it_splits():
    environment = make("CartPole-v1", {"max_steps_in_episode": 3})
    outside, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=3)

    @jax.jit
    def ours(key, state, action):
        return environment.step(*jax.random.split(key), state, action)

    state, _ = jax.jit(environment.reset)(jax.random.key(0))
    for t in range(7):
        key, action = jax.random.key(100 + t), jnp.int32(t % 2)
        with jax.numpy_dtype_promotion("standard"):
            expected = outside.step(key, state, action, params)
        result = ours(key, state, action)
        obs, next_state, reward, terminated, truncated, info = expected
        np.testing.assert_allclose(result.obs, obs, atol=1e-6)
        np.testing.assert_allclose(result.final_obs, info["final_observation"], atol=1e-6)
        flags = (float(result.reward), bool(result.terminated), bool(result.truncated))
        assert flags == (float(reward), bool(terminated), bool(truncated))
        assert bool(truncated) == (t in (2, 5))
        for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(next_state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        state = result.state


class Duck:
    """No gymnax class at all: counts its steps, both ends on the fourth; the state is a number."""

    default_params = None

    def action_space(self, params):
        return Discrete(4)

    def reset(self, key, params):
        return jnp.zeros((2,), jnp.float32), jnp.int32(0)

    def step(self, key, state, action, params):
        time = state + 1
        final_obs = jnp.stack([time, action]).astype(jnp.float32)
        over = time == 4
        obs = jnp.where(over, 0.0, final_obs)
        info = {"final_observation": final_obs}
        return obs, jnp.where(over, 0, time), action, over, over, info


def test_any_object_with_the_methods_will_do():
    environment = make(Duck())
    assert isinstance(environment, Environment)
    assert (environment.spec.id, environment.spec.num_actions) == ("Duck", 4)
    assert environment.spec.time_limit is None
    step = jax.jit(environment.step)
    key = jax.random.key(0)
    state, _ = environment.reset(key)
    for t in range(1, 5):
        result = step(key, key, state, jnp.int32(3))
        state = result.state
        assert result.final_obs.tolist() == [t, 3]
        assert result.reward == 3.0
    assert (result.obs.tolist(), int(state)) == ([0, 0], 0)
    assert bool(result.terminated)
    assert bool(result.truncated)


def test_python_numbers_and_doubles_of_a_users_functions_become_what_loops_carry():
    def reset(key):
        return (0, 0.0, False), np.zeros(2)

    def step(key, state, action):
        time, level, flag = state
        return (time + 1, level + 0.5, ~jnp.bool_(flag)), np.ones(2), 1, False, time + 1 == 5

    environment = functional(reset, step, num_actions=2, time_limit=5)
    state, obs = environment.reset(jax.random.key(0))

    @jax.jit
    def run(state):
        def body(state, key):
            result = environment.step(key, key, state, jnp.int32(0))
            return result.state, result

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(0), 5))

    (time, level, flag), result = run(state)
    assert [x.dtype.name for x in (time, level, flag)] == ["int32", "float32", "bool"]
    assert (int(time), float(level), bool(flag)) == (0, 0.0, False)  # it was reset
    assert result.truncated.tolist() == [False, False, False, False, True]
    assert (result.reward.dtype.name, result.terminated.dtype.name) == ("float32", "bool")
    assert result.final_obs.tolist() == [[1, 1]] * 5
    assert result.obs[-1].tolist() == obs.tolist() == [0, 0]


def test_flags_may_be_numbers():
    def reset(key):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, time, action):
        return time + 1, jnp.zeros(1), 0.0, 0, time == 4  # terminated is an int, truncated a bool

    environment = functional(reset, step, num_actions=2, time_limit=5)
    key = jax.random.key(0)
    result = jax.jit(environment.step)(key, key, jnp.int32(4), jnp.int32(0))
    assert (result.terminated.dtype.name, bool(result.terminated)) == ("bool", False)
    assert (result.truncated.dtype.name, bool(result.truncated)) == ("bool", True)


def test_state_may_hold_a_random_key():
    def reset(key):
        return key, jnp.zeros(1)

    def step(key, state, action):
        return jax.random.split(state)[0], jnp.zeros(1), 1.0, False, False

    environment = functional(reset, step, num_actions=2, time_limit=5)
    key = jax.random.key(3)
    result = jax.jit(environment.step)(key, key, key, jnp.int32(0))
    expected = jax.random.key_data(jax.random.split(key)[0])
    np.testing.assert_array_equal(jax.random.key_data(result.state), expected)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: make(gymnax.environments.classic_control.cartpole.CartPole), "write CartPole"),
        (lambda: make("CartPole-v1", {"max_steps_in_episode": "3"}), "expected an int"),
        (lambda: make("CartPole-v1", {1: 2}), "must be a name"),
        (lambda: make(None), "None"),
        (lambda: make((1, 2, 3)), "tuple of 3"),
    ],
)
def test_what_is_no_environment_is_refused_in_words(build, words):
    with pytest.raises((ConfigError, TypeError), match=words):
        build()


def one_step(obs=None, reward=0.0, terminated=False):
    """Two functions whose step gives what it is told to."""
    obs = jnp.zeros(2) if obs is None else obs

    def reset(key):
        return jnp.int32(0), obs

    def step(key, state, action):
        flag = jnp.asarray(terminated)
        return state + 1, obs, jnp.asarray(reward), flag, jnp.asarray(False)

    return reset, step


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ({"obs": {"x": 1}}, {}, "one array"),
        ({"reward": [1.0, 2.0]}, {}, "reward has shape"),
        ({"terminated": [True, False]}, {}, "terminated has shape"),
        ({}, {"num_actions": 0}, "num_actions=0"),
        ({}, {"time_limit": 0}, "time_limit=0"),
        ({}, {"time_limit": 5.5}, r"time_limit=5\.5"),
    ],
)
def test_functions_that_do_not_fit_are_refused_in_words(parts, options, words):
    with pytest.raises((ConfigError, TypeError), match=words):
        functional(*one_step(**parts), **{"num_actions": 2, "time_limit": 5, **options})


def test_numbers_that_a_cast_would_lose_are_refused():
    def reset(key):
        return jnp.uint8(0), jnp.zeros(2, jnp.uint8)

    def step(key, state, action):
        wide = jnp.full(2, 300, jnp.int32)
        return state, wide, jnp.float32(0), jnp.bool_(False), jnp.bool_(False)

    with pytest.raises(UnsupportedEnvError, match="obs is int32"):
        functional(reset, step, num_actions=2, time_limit=5)


DRAWS = """
import sys
from jaxrl_cb.envs import make
make("CartPole-v1")
print(sorted({"seaborn", "pandas", "matplotlib", "scipy.stats"} & set(sys.modules)))
from gymnax.environments.misc import pong
pong.plt.figure(figsize=(1, 1))
print(len(pong.sns.color_palette("cubehelix", 4)))
import matplotlib.pyplot
print(matplotlib.pyplot.figure is pong.plt.figure)
"""
DRAWS_SOON = """
import sys
from jaxrl_cb.envs import lazy
with lazy._stand_ins(lazy.DRAWING):
    import matplotlib.pyplot as plt
    from matplotlib import colors
    print(plt.figure.__module__, colors.Normalize.__module__)
import matplotlib
print(matplotlib.pyplot.figure is plt.figure, matplotlib.colors.Normalize is colors.Normalize)
"""


def test_a_plotting_library_may_be_used_while_it_is_put_off():
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", DRAWS_SOON], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["matplotlib.pyplot matplotlib.colors", "True True"]


def test_making_an_environment_loads_no_plotting_library_until_something_is_drawn():
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", DRAWS], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["[]", "4", "True"]
