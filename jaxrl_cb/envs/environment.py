"""What an environment is to the rest of the library: a specification and two pure functions."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.errors import UnsupportedEnvError
from jaxrl_cb.types import Array, EnvStep, PyTree


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Facts about an environment.

    Attributes:
        id: its name, for messages and files.
        obs_shape: shape of one observation.
        obs_dtype: its dtype's name, for example "float32".
        num_actions: A; actions are 0..A-1.
        time_limit: steps after which an episode is truncated, or None.
        reward_threshold: mean undiscounted return that counts as solved, or None.
    """

    id: str
    obs_shape: tuple[int, ...]
    obs_dtype: str
    num_actions: int
    time_limit: int | None = None
    reward_threshold: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Environment:
    """One environment that resets itself. Equal to another iff their `cache_key` is equal.

    Attributes:
        spec: facts about it; ``environment.spec.reward_threshold`` is what a stop callback reads.
        reset: ``reset(key) -> (state, obs)``; the key is consumed.
        step: ``step(key_step, key_reset, state, action) -> EnvStep``; resets with the second key
            when the episode has ended. Both keys are consumed.
        cache_key: what compiled programs are found by. It must determine `reset` and `step`.
    """

    spec: EnvSpec
    reset: Callable[[Array], tuple[PyTree, Array]]
    step: Callable[[Array, Array, PyTree, Array], EnvStep]
    cache_key: Hashable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Environment) and self.cache_key == other.cache_key

    def __hash__(self) -> int:
        return hash(self.cache_key)


class ByIdentity:
    """Makes any object usable as a part of a key: equal only to itself, and kept alive by it."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def tree_values(tree: PyTree) -> Hashable:
    """The structure and the values of a pytree of arrays or numbers, as a hashable value."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    return structure, tuple((a.shape, a.dtype.str, a.tobytes()) for a in arrays)


def functional(
    reset: Callable[[Array], tuple[PyTree, Array]],
    step: Callable[[Array, PyTree, Array], tuple[PyTree, Array, Array, Array, Array]],
    *,
    num_actions: int,
    time_limit: int | None,
    reward_threshold: float | None = None,
    id: str = "custom",
) -> Environment:
    """Makes an environment of two pure functions; the automatic reset is ours.

    Args:
        reset: ``reset(key) -> (state, obs)``.
        step: ``step(key, state, action) -> (state, obs, reward, terminated, truncated)``, without
            a reset: `obs` is the observation that the action led to. `truncated` has to hold
            the time limit, if there is one.
        num_actions: A; `action` is an int32 in 0..A-1.
        time_limit: steps after which `truncated` is set at the latest. Tests need one.
        reward_threshold: mean undiscounted return that counts as solved, or None.
        id: name for messages and files.

    Raises:
        UnsupportedEnvError: the functions do not fit each other; the message says where.
    """
    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(id, tuple(obs.shape), obs.dtype.name, num_actions, time_limit, reward_threshold)

    def reset_strong(key):
        state, obs = reset(key)
        return strong(state), strong(obs)

    def step_checked(key, env_state, action):
        result = step(key, env_state, action)
        if len(result) != 5:
            raise UnsupportedEnvError(
                f"step of environment {id!r} returned {len(result)} values; expected 5: "
                "(state, obs, reward, terminated, truncated)"
            )
        return result

    key = ("functional", ByIdentity(reset), ByIdentity(step), spec)
    return conformed(Environment(spec, reset_strong, resetting(reset_strong, step_checked), key))


def resetting(reset: Callable[..., Any], step: Callable[..., Any]) -> Callable[..., EnvStep]:
    """Adds the automatic reset to a `step` that gives (state, obs, reward, terminated, truncated).

    The observation that the action led to is kept as `final_obs`.
    """

    def step_and_reset(key_step, key_reset, env_state, action):
        stepped, final_obs, reward, terminated, truncated = step(key_step, env_state, action)
        fresh, fresh_obs = reset(key_reset)
        done = jnp.logical_or(terminated, truncated)
        next_state, next_obs = jax.tree.map(
            lambda a, b: jnp.where(done, a, b), (fresh, fresh_obs), (stepped, final_obs)
        )
        return EnvStep(next_state, next_obs, reward, terminated, truncated, final_obs)

    return step_and_reset


def strong(tree: PyTree) -> PyTree:
    """Turns every leaf into an array that is not weakly typed, so that loops can carry it."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)


def conformed(environment: Environment) -> Environment:
    """Casts what `step` returns to the types of `reset`, and checks that shapes agree.

    Rewards become float32 and flags bool. A state or an observation whose shape changes, or that
    turns from an integer into a float, is an error, as nothing could carry it.

    Raises:
        UnsupportedEnvError: naming the leaf.
    """
    spec = environment.spec
    key = jax.eval_shape(lambda: jax.random.key(0))
    like_state, like_obs = jax.eval_shape(environment.reset, key)
    like = {"state": like_state, "obs": like_obs}

    def cast(new, old, path):
        new_dtype = jnp.result_type(new)
        if jnp.shape(new) != old.shape or not _carries(new_dtype, old.dtype):
            raise UnsupportedEnvError(
                f"environment {spec.id!r}: {path} is {new_dtype}{list(jnp.shape(new))} after a "
                f"step but {old.dtype}{list(old.shape)} after a reset; make both the same"
            )
        return jax.lax.convert_element_type(new, old.dtype) if new_dtype != old.dtype else new

    def step(key_step, key_reset, state, action):
        result = environment.step(key_step, key_reset, state, action)
        new = {"state": result.state, "obs": strong(result.obs)}
        if jax.tree.structure(new) != jax.tree.structure(like):
            raise UnsupportedEnvError(
                f"environment {spec.id!r}: the state of a step has another structure than that of "
                f"a reset: {jax.tree.structure(new['state'])} and {jax.tree.structure(like_state)}"
            )
        new = jax.tree_util.tree_map_with_path(
            lambda path, a, b: cast(a, b, jax.tree_util.keystr(path)), new, like
        )
        return EnvStep(
            state=strong(new["state"]),
            obs=new["obs"],
            reward=jnp.asarray(result.reward).astype(jnp.float32).reshape(()),
            terminated=jnp.asarray(result.terminated).astype(bool).reshape(()),
            truncated=jnp.asarray(result.truncated).astype(bool).reshape(()),
            final_obs=cast(strong(result.final_obs), like_obs, "final observation"),
        )

    jax.eval_shape(step, key, key, like_state, jax.ShapeDtypeStruct((), jnp.int32))
    return dataclasses.replace(environment, step=step)


def _carries(new: Any, old: Any) -> bool:
    if new == old:
        return True
    both = [jnp.issubdtype(x, jnp.integer) or x == np.bool_ for x in (new, old)]
    return all(both) or (jnp.issubdtype(new, jnp.number) and jnp.issubdtype(old, jnp.floating))
