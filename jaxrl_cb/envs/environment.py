"""What an environment is to the rest of the library: a specification and two pure functions."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrl_cb.checks import check_bool, check_float, check_int, check_kind
from jaxrl_cb.errors import UnsupportedEnvError, kind
from jaxrl_cb.ops.packing import UNPACKED, BitPacking, Packing
from jaxrl_cb.types import Array, EnvStep, PyTree

TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where Python looks at the value of something that is only being traced."""

ENV_AXIS = "envs"
"""Name of the axis of environments that are stepped together, for statistics over all of them."""


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
        is_binary: whether every element of an observation is 0 or 1, so that replay may keep bits.
            It is checked while training.
    """

    id: str
    obs_shape: tuple[int, ...]
    obs_dtype: str
    num_actions: int
    time_limit: int | None = None
    reward_threshold: float | None = None
    is_binary: bool = False

    @property
    def packing(self) -> Packing:
        """How replay keeps observations."""
        return BitPacking(self.obs_shape, self.obs_dtype) if self.is_binary else UNPACKED


@dataclasses.dataclass(frozen=True, eq=False)
class Environment:
    """One environment that resets itself. Equal to another iff their `cache_key` is equal.

    Attributes:
        spec: facts about it; ``environment.spec.reward_threshold`` is what a stop callback reads.
        reset: ``reset(key) -> (state, obs)``; the key is consumed.
        step: ``step(key_step, key_reset, state, action) -> EnvStep``; resets with the second key
            when the episode has ended. Both keys are consumed.
        cache_key: what compiled programs are found by. It must determine `reset` and `step`, but
            for the values of `env_params`.
        env_params: parameters that may differ from seed to seed and change between two epochs, and
            their values here.
        bind: gives the environment with other values of them, which may be traced.
    """

    spec: EnvSpec
    reset: Callable[[Array], tuple[PyTree, Array]]
    step: Callable[[Array, Array, PyTree, Array], EnvStep]
    cache_key: Hashable
    env_params: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bind: Callable[[Mapping[str, Any]], "Environment"] | None = None

    def with_params(self, values: Mapping[str, Any]) -> "Environment":
        """The environment with these values of its `env_params`; itself where it has none."""
        return self.bind(values) if self.bind else self

    @property
    def fixed(self) -> "Environment":
        """The same, not equal to what has other values of its `env_params`."""
        if not self.env_params:
            return self
        key = (self.cache_key, tuple(sorted(self.env_params.items())))
        return Environment(self.spec, self.reset, self.step, key)

    def reset_all(self, keys: Array) -> tuple[PyTree, Array]:
        """`reset` of E environments: keys are [E]."""
        return jax.vmap(self.reset)(keys)

    def step_all(
        self, keys_step: Array, keys_reset: Array, states: PyTree, actions: Array
    ) -> EnvStep:
        """`step` of E environments side by side; `ENV_AXIS` names the axis between them."""
        return jax.vmap(self.step, axis_name=ENV_AXIS)(keys_step, keys_reset, states, actions)

    def __repr__(self) -> str:
        return f"Environment({self.spec.id!r})"

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
    is_binary: bool = False,
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
        is_binary: whether observations hold only 0 and 1 (bool ones do); replay keeps them as bits.
        id: name for messages and files.

    Raises:
        UnsupportedEnvError: the functions do not fit each other; the message says where.
    """
    check_kind("id", id, str)
    check_int("num_actions", num_actions, 1)
    check_bool("is_binary", is_binary)
    if reward_threshold is not None:
        check_float("reward_threshold", reward_threshold, -math.inf)
    if time_limit is not None:
        check_int("time_limit", time_limit, 1)
    _check_signature(id, "reset", reset, ("key",))
    _check_signature(id, "step", step, ("key", "state", "action"))
    first = jax.eval_shape(reset, jax.eval_shape(lambda: jax.random.key(0)))
    if not isinstance(first, tuple) or len(first) != 2:
        raise UnsupportedEnvError(
            f"reset of environment {id!r} returned {_count(first)}; expected 2: (state, obs)"
        )
    _, obs = _shapes(reset)
    if not hasattr(obs, "shape"):
        raise UnsupportedEnvError(
            f"environment {id!r}: the observation is a {type(obs).__name__}; it must be one array "
            "(reset gives (state, obs), in this order)"
        )
    spec = EnvSpec(
        *(id, tuple(obs.shape), obs.dtype.name, num_actions, time_limit, reward_threshold),
        is_binary=is_binary or obs.dtype == bool,
    )

    def checked_step(key, env_state, action):
        result = step(key, env_state, action)
        if not isinstance(result, tuple | list) or len(result) != 5:
            raise UnsupportedEnvError(
                f"step of environment {id!r} returned {_count(result)}; expected 5: "
                "(state, obs, reward, terminated, truncated)"
            )
        return result

    key = ("functional", ByIdentity(reset), ByIdentity(step), spec)
    return resetting(spec, reset, checked_step, key)


def _count(result: Any) -> str:
    if isinstance(result, tuple | list):
        return f"{len(result)} values"
    return "one array" if hasattr(result, "shape") else kind(result)


def resetting(
    spec: EnvSpec, reset: Callable[..., Any], step: Callable[..., Any], cache_key: Hashable
) -> Environment:
    """Adds the automatic reset to a `step` that gives (state, obs, reward, terminated, truncated).

    The observation that the action led to is kept as `final_obs`.
    """
    fitted = _fitter(spec, reset)

    def step_and_reset(key_step, key_reset, env_state, action):
        state, obs, reward, terminated, truncated = step(key_step, env_state, action)
        result = fitted(EnvStep(state, obs, reward, terminated, truncated, obs, reward))
        done = result.terminated | result.truncated
        state, obs = begun_anew(done, reset, key_reset, (result.state, result.obs))
        return result._replace(state=state, obs=obs)

    return checked(spec, reset, step_and_reset, cache_key)


def begun_anew(
    done: Array,
    reset: Callable[[Array], tuple[PyTree, Array]],
    key: Array,
    otherwise: tuple[PyTree, Array],
) -> tuple[PyTree, Array]:
    """State and observation of a new episode where the old one is done, else those given.

    On CPU resets are computed only at steps at which some environment's episode is done. (Elsewhere
    a branch would wait for the host.)

    Args:
        done: [] bool, of one of the environments that `ENV_AXIS` names, if it names any.
        reset: of the environment.
        key: for it.
        otherwise: state and observation.
    """
    try:
        anyone_is = lax.psum(done.astype(jnp.int32), ENV_AXIS) > 0
    except NameError:  # an environment by itself
        anyone_is = done

    otherwise = strong(otherwise)

    def fresh():
        return strong(reset(key))

    def branch():
        return lax.cond(anyone_is, fresh, lambda: otherwise)

    new = lax.platform_dependent(cpu=branch, default=fresh)
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), new, otherwise)


def conformed(
    spec: EnvSpec, reset: Callable[..., Any], step: Callable[..., EnvStep], cache_key: Hashable
) -> Environment:
    """An environment whose step returns the types that its reset returns.

    Rewards become float32 and flags bool. A state or an observation whose shape changes, or whose
    numbers would be lost in a cast, is an error, as nothing could carry it.

    Raises:
        UnsupportedEnvError: naming the leaf.
    """
    fitted = _fitter(spec, reset)
    return checked(spec, reset, lambda *inputs: fitted(step(*inputs)), cache_key)


def _fitter(spec: EnvSpec, reset: Callable[..., Any]) -> Callable[[EnvStep], EnvStep]:
    """Gives a step's result the types that `reset` returns, or raises where it cannot."""
    like_state, like_obs = _shapes(reset)

    def fitted(result: EnvStep) -> EnvStep:
        return EnvStep(
            state=_matched(spec.id, "state", result.state, like_state),
            obs=_matched(spec.id, "obs", result.obs, like_obs),
            reward=_scalar(spec.id, "reward", result.reward).astype(jnp.float32),
            terminated=_scalar(spec.id, "terminated", result.terminated).astype(bool),
            truncated=_scalar(spec.id, "truncated", result.truncated).astype(bool),
            final_obs=_matched(spec.id, "final obs", result.final_obs, like_obs),
            score=_scalar(spec.id, "score", result.score).astype(jnp.float32),
        )

    return fitted


def checked(
    spec: EnvSpec, reset: Callable[..., Any], step: Callable[..., EnvStep], cache_key: Hashable
) -> Environment:
    """The environment of these functions, which are traced once to see that they fit."""
    environment = Environment(spec, lambda key: strong(reset(key)), step, cache_key)

    def once(key):
        keys = key[None]
        states, _ = environment.reset_all(keys)
        return environment.step_all(keys, keys, states, jnp.zeros((1,), jnp.int32))

    try:
        jax.eval_shape(once, jax.eval_shape(lambda: jax.random.key(0)))
    except TRACED as error:
        raise UnsupportedEnvError(
            f"environment {spec.id!r}: `if`, `and`, `while`, float() and NumPy cannot look at what "
            "is computed; write jnp.where(condition, yes, no), `&`, jax.lax.cond or jax.numpy"
        ) from error
    return environment


def _check_signature(env_id: str, name: str, function: Any, parameters: tuple[str, ...]) -> None:
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        raise UnsupportedEnvError(
            f"environment {env_id!r}: {name} is called as {name}({', '.join(parameters)}), but: "
            f"{error}"
        ) from error
    except ValueError:  # it has no signature to look at
        pass


def strong(tree: PyTree) -> PyTree:
    """Turns every leaf into an array that is not weakly typed, so that loops can carry it."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.result_type(x)), tree)


def _shapes(reset: Callable[..., Any]) -> tuple[PyTree, Any]:
    return jax.eval_shape(lambda: strong(reset(jax.random.key(0))))


def _matched(env_id: str, what: str, new: PyTree, like: PyTree) -> PyTree:
    """`new` with the dtypes of `like`; an error where a leaf does not fit."""
    if jax.tree.structure(new) != jax.tree.structure(like):
        raise UnsupportedEnvError(
            f"environment {env_id!r}: the {what} has the structure {jax.tree.structure(new)} after "
            f"a step but {jax.tree.structure(like)} after a reset; make both the same (reset gives "
            "(state, obs), step (state, obs, reward, terminated, truncated), in this order)"
        )

    def leaf(path, new, old):
        dtype = jnp.result_type(new)
        if jnp.shape(new) != old.shape or not _carries(dtype, old.dtype):
            name = what + jax.tree_util.keystr(path)
            raise UnsupportedEnvError(
                f"environment {env_id!r}: {name} is {dtype}{list(jnp.shape(new))} after a step but "
                f"{old.dtype}{list(old.shape)} after a reset; make both the same"
            )
        return lax.convert_element_type(new, old.dtype)

    return jax.tree_util.tree_map_with_path(leaf, new, like)


def _carries(new: Any, old: Any) -> bool:
    """Whether numbers of one dtype can be kept in another: safely, or as a float."""
    if new == old or jnp.issubdtype(old, jnp.floating):
        return new == old or jnp.issubdtype(new, jnp.number) or new == np.bool_
    plain = jnp.issubdtype(new, jnp.integer) or new == np.bool_
    return plain and np.can_cast(np.dtype(new), np.dtype(old), "safe")


def _scalar(env_id: str, what: str, value: Any) -> Array:
    is_number = isinstance(value, bool | int | float | np.generic | np.ndarray | jax.Array)
    if not is_number or jnp.shape(value) != ():
        given = f"has shape {jnp.shape(value)}" if is_number else f"is {kind(value)}"
        raise UnsupportedEnvError(f"environment {env_id!r}: {what} {given}; expected one number")
    return jnp.asarray(value)
