"""The conformance test: it passes what is right, and each fault has its own message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_cb
from jaxrl_cb.env_check import check_environment
from jaxrl_cb.envs import functional
from jaxrl_cb.errors import UnsupportedEnvError

LIMIT = 12


def reset(key):
    key_state, key_obs = jax.random.split(key)
    state = (jnp.int32(0), jax.random.uniform(key_state))
    return state, jax.random.uniform(key_obs, (2,))


def step(key, state, action):
    age, level = state
    obs = jnp.stack([age.astype(jnp.float32), level])
    return (age + 1, level), obs, 1.0, False, age + 1 >= LIMIT


def made(reset=reset, step=step, time_limit=LIMIT, **settings):
    return functional(reset, step, num_actions=2, time_limit=time_limit, **settings)


def reset_by_one_key(key):
    return (jnp.int32(0), jax.random.uniform(key)), jax.random.uniform(key, (2,))


def step_by_one_key(key, state, action):
    state, _, *rest = step(key, state, action)
    return (state[0], state[1] + jax.random.normal(key)), jax.random.normal(key, (2,)), *rest


def step_that_terminates_at_the_limit(key, state, action):
    state, obs, reward, _, cut = step(key, state, action)
    return state, obs, reward, cut, False


def step_that_goes_on(key, state, action):
    state, obs, reward, terminated, _ = step(key, state, action)
    return state, obs, reward, terminated, state[0] >= LIMIT + 3


def step_to_nan(key, state, action):
    state, obs, _, *rest = step(key, state, action)
    return state, obs * jnp.nan, jnp.inf, *rest


class Counts:
    """A step that depends on how often it was traced."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key, state, action):
        self.calls += 1
        state, obs, _, *rest = step(key, state, action)
        return state, obs, float(self.calls), *rest


def step_of_numpy(key, state, action):
    state, obs, _, *rest = step(key, state, action)
    return state, obs, float(np.random.default_rng().random()), *rest


def reset_of_numpy(key):
    state, obs = reset(key)
    return state, obs + np.random.default_rng().random(2).astype(np.float32)


FAULTS = {
    "gave two results": lambda: made(reset=reset_of_numpy),
    "reset uses a random key twice": lambda: made(reset=reset_by_one_key),
    "step uses a random key twice": lambda: made(step=step_by_one_key),
    "were terminated there": lambda: made(step=step_that_terminates_at_the_limit),
    "beyond the declared time limit of 12": lambda: made(step=step_that_goes_on),
    "obs holds NaN": lambda: made(step=step_to_nan),
    "reward holds NaN": lambda: made(step=step_to_nan),
    "gives two programs": lambda: made(step=Counts()),
    "no NumPy random numbers": lambda: made(step=step_of_numpy),
    "declared binary": lambda: made(is_binary=True),
    "has no time limit": lambda: made(time_limit=None),
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_named(words):
    with pytest.raises(UnsupportedEnvError, match=words) as caught:
        check_environment(FAULTS[words]())
    assert "custom" in str(caught.value)


def test_a_key_reused_by_the_reset_is_not_said_of_the_step_too():
    with pytest.raises(UnsupportedEnvError) as caught:
        check_environment(made(reset=reset_by_one_key))
    assert "step uses" not in str(caught.value)


def test_mistakes_in_the_functions_are_told_in_words():
    with pytest.raises(UnsupportedEnvError, match=r"reset is called as reset\(key\)"):
        made(reset=step, step=reset)
    with pytest.raises(UnsupportedEnvError, match=r"step is called as step\(key, state, action\)"):
        made(step=lambda state, action: None)

    def turned(key, state, action):
        state, obs, *rest = step(key, state, action)
        return obs, state, *rest

    with pytest.raises(UnsupportedEnvError, match="in this order"):
        made(step=turned)

    def branches(key, state, action):
        return step(key, state, 1 if action == 0 else 0)

    with pytest.raises(UnsupportedEnvError, match=r"jnp\.where") as caught:
        made(step=branches)
    assert isinstance(caught.value.__cause__, jax.errors.TracerBoolConversionError)
    assert repr(made()) == "Environment('custom')"


def test_what_is_right_passes():
    assert check_environment(made()) is None
    assert jaxrl_cb.check_environment is check_environment


def test_an_end_that_coincides_with_the_limit_may_set_both_flags():
    def both(key, state, action):
        state, obs, reward, _, cut = step(key, state, action)
        return state, obs, reward, cut, cut

    check_environment(made(step=both))


class OwnStep:
    """A gymnax-like environment with an automatic reset of its own."""

    name = "OwnStep"
    default_params = None

    def __init__(self, start_after_an_end):
        self.start_after_an_end = start_after_an_end

    def action_space(self, params):
        return type("Space", (), {"n": 2})

    def reset(self, key, params):
        start = jax.random.uniform(key)
        return start[None], (jnp.int32(0), start)

    def step(self, key, state, action, params):
        age, start = state
        cut = age + 1 >= LIMIT
        fresh = self.start_after_an_end(key)
        obs = start[None]
        info = {"final_observation": obs}
        state = (jnp.where(cut, 0, age + 1), jnp.where(cut, fresh, start))
        return jnp.where(cut, fresh[None], obs), state, 1.0, False, cut, info

    @property
    def time_limit(self):
        return LIMIT


class Params:
    max_steps_in_episode = LIMIT


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (lambda key: jnp.float32(0.5), "begins alike"),
        (lambda key: 0.3 * jax.random.uniform(key), "begin elsewhere"),
    ],
)
def test_starts_after_an_end_are_compared_with_those_of_reset(start, words):
    class Limited(OwnStep):
        default_params = Params()

    check_environment(Limited(jax.random.uniform))
    with pytest.raises(UnsupportedEnvError, match=words):
        check_environment(Limited(start))


def test_a_start_that_is_always_the_same_is_allowed():
    check_environment(made(reset=lambda key: ((jnp.int32(0), jnp.float32(0.5)), jnp.zeros((2,)))))


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "DeepSea-bsuite", "FrozenLake-misc", "Breakout-MinAtar"]
)
def test_gymnax_environments_conform(env_id):
    check_environment(env_id, num_envs=16)
