"""Policies: parameters that act, and the handle through which callbacks set what is trained."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.algorithms.base import Algorithm, batched_q
from jaxrl_cb.checks import MAX_FLOAT, check_int
from jaxrl_cb.envs.environment import EnvSpec
from jaxrl_cb.errors import (
    CallbackTypeError,
    CallbackValueError,
    ConfigError,
    ConfigTypeError,
    SeedIndexError,
    kind,
    shown,
)
from jaxrl_cb.ops.epsilon import epsilon_greedy
from jaxrl_cb.ops.randomness import draw
from jaxrl_cb.ops.segments import segment
from jaxrl_cb.trainer.leaves import copied
from jaxrl_cb.trainer.members import Members
from jaxrl_cb.types import LinearSegment, PyTree, TrainState


class Policy:
    """A Q-network's parameters, ready to act.

    Attributes:
        algorithm: whose `q_values` are used.
        spec: the environment's facts.
        params: parameters with a leading [S], NumPy arrays where a run or a folder gave them.
        num_seeds: S.
        epsilon: [S], probability of a random action when `act` is given a key.
    """

    def __init__(self, algorithm: Algorithm, spec: EnvSpec, params: PyTree, epsilon: Any = 0.0):
        self.algorithm = algorithm
        self.spec = spec
        self._params = params
        self._on_device: PyTree = None
        self._epsilon = epsilon
        self._programs: dict[Any, Any] = {}  # found once: looking them up hashes the algorithm
        self._num_seeds = jax.tree.leaves(params)[0].shape[0] if params is not None else 0

    @property
    def params(self) -> PyTree:
        """Parameters, with a leading [S]."""
        return self._params

    def _to_act(self) -> PyTree:
        """The parameters on a device: a saved policy never is, and would wait for what runs."""
        if self._on_device is None:
            self._on_device = jax.device_put(self._params)
        return self._on_device

    @property
    def num_seeds(self) -> int:
        """S, seeds held."""
        return self._num_seeds

    @property
    def epsilon(self) -> np.ndarray:
        """[S] float32, the test epsilon."""
        return np.broadcast_to(np.asarray(self._epsilon, np.float32), (self.num_seeds,))

    def __getitem__(self, seed: int) -> "Policy":
        """The policy of one seed."""
        check_int("seed", seed, -(2**31))
        if not -self.num_seeds <= seed < self.num_seeds:
            raise SeedIndexError(
                f"seed={seed} is not one of the policy's; it has {self.num_seeds}: 0 to "
                f"{self.num_seeds - 1}"
            )
        params = jax.tree.map(lambda x: np.asarray(x)[seed % self.num_seeds][None], self.params)
        return Policy(self.algorithm, self.spec, params, self.epsilon[seed][None])

    def seeds(self, indices: Sequence[int]) -> "Policy":
        """The policy of some seeds, in this order."""
        own = [self[index] for index in indices]
        params = jax.tree.map(lambda *x: np.concatenate(x), *[policy.params for policy in own])
        return Policy(self.algorithm, self.spec, params, self.epsilon[list(indices)])

    def q_values(self, obs: Any) -> np.ndarray:
        """Action values of one observation ([A]) or a batch ([B, A]).

        Args:
            obs: [*obs] or [B, *obs].

        Returns:
            NumPy array; with several seeds it has a leading [S].
        """
        return self._call(_q_values, obs)

    def act(self, obs: Any, key: jax.Array | None = None) -> np.ndarray:
        """Greedy actions, or epsilon-greedy ones where a key is given.

        Args:
            obs: [*obs] or [B, *obs].
            key: typed key, consumed; random actions are taken with probability `epsilon`.

        Returns:
            int32 NumPy array, 0-d or [B]; with several seeds it has a leading [S].
        """
        if key is None:
            return self._call(_greedy, obs)
        if not isinstance(key, jax.Array):
            raise ConfigTypeError(
                f"key={shown(key)} is {kind(key)}; expected a key, for example jax.random.key(0)"
            )
        return self._call(_explore, obs, self.epsilon, key)

    def _call(self, function: Any, obs: Any, *arguments: Any) -> np.ndarray:
        shape = self.spec.obs_shape
        try:
            obs = np.asarray(obs, self.spec.obs_dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigTypeError(
                f"obs={shown(obs)} is {kind(obs)} that is no array of {self.spec.obs_dtype}; "
                f"expected the shape {shape} or a batch of such observations"
            ) from error
        single = obs.shape == shape
        if not single and obs.shape[1:] != shape:
            raise ConfigError(
                f"obs has shape {obs.shape}; expected {shape} or a batch of such observations"
            )
        batch = obs[None] if single else obs
        size = len(batch)
        padded = 1 << (size - 1).bit_length() if size else 1
        if padded != size:  # batches of any size share a few programs
            batch = np.concatenate([batch, np.zeros((padded - size, *shape), batch.dtype)])
        if function not in self._programs:
            self._programs[function] = _program(function, self.algorithm)
        answer = np.asarray(self._programs[function](self._to_act(), batch, *arguments))
        answer = answer[:, 0] if single else answer[:, :size]
        return answer[0] if self.num_seeds == 1 else answer


def check_policy(name: str, value: Any) -> None:
    """Raises ConfigTypeError for what is not a policy, with what to write instead."""
    if isinstance(value, Policy):
        return
    if hasattr(value, "best_policy"):
        raise ConfigTypeError(f"{name} is a result; write result.best_policy or result.policy")
    hint = "; write jaxrl_cb.load_policy(...)" if isinstance(value, str | os.PathLike) else ""
    raise ConfigTypeError(f"{name}={shown(value)} is {kind(value)}, not a policy{hint}")


def _q_values(algorithm: Algorithm, params: PyTree, obs: jax.Array) -> jax.Array:
    return batched_q(algorithm, params)(obs, None)


def _greedy(algorithm: Algorithm, params: PyTree, obs: jax.Array) -> jax.Array:
    return jnp.argmax(_q_values(algorithm, params, obs), axis=-1).astype(jnp.int32)


def _explore(algorithm: Algorithm, params: PyTree, obs: jax.Array, epsilon, key) -> jax.Array:
    _, words = draw(key, (2, len(obs)))
    return epsilon_greedy(words, batched_q(algorithm, params)(obs, None), epsilon)


@functools.lru_cache(maxsize=96)
def _program(function: Any, algorithm: Algorithm) -> Any:
    """Maps over the seeds of the parameters; one seed is not batched, which is faster."""

    def mapped(params, obs, *arguments):
        if jax.tree.leaves(params)[0].shape[0] == 1:
            one, *epsilon = jax.tree.map(lambda x: x[0], (params, *arguments[:1]))
            return function(algorithm, one, obs, *epsilon, *arguments[1:])[None]
        axes = (0, None, 0, None)[: 2 + len(arguments)]
        own = functools.partial(function, algorithm)
        return jax.vmap(own, in_axes=axes)(params, obs, *arguments)

    return jax.jit(mapped)


def _now(segment: LinearSegment) -> np.ndarray:
    """[S] the value of each seed's segment."""
    own = jax.device_get(segment)
    line = own.start + own.slope * own.offset.astype(np.float32)
    return np.where(own.offset >= own.steps_left, own.final, line)


class TrainingPolicy(Policy):
    """The handle on what is being trained; it owns the state.

    A scalar sets all seeds, an array [S] sets each. Seeds that have stopped keep what they have.
    None of the setters compiles anything.
    """

    def __init__(
        self, members: Members, algorithm: Algorithm, spec: EnvSpec, indices: Sequence[int]
    ):
        super().__init__(algorithm, spec, None)
        self._members = members
        self._indices = tuple(indices)

    @property
    def num_seeds(self) -> int:
        """S, seeds of this handle."""
        return len(self._indices)

    @property
    def state(self) -> TrainState:
        """The state with a leading [S]; valid until the callback returns."""
        return self._members.state(self._indices)

    @state.setter
    def state(self, new: TrainState) -> None:
        self._members.replace_state(self._indices, new)

    @property
    def _small(self) -> TrainState:
        """The state without the replay, which is large and would be copied to be stacked."""
        return self._members.small_state(self._indices)

    def snapshot(self) -> TrainState:
        """A copy of the state that stays valid."""
        return copied(self.state)

    def member(self, index: int) -> TrainState:
        """The state of seed `index` of this handle, with a leading [1]."""
        check_int("index", index, 0, self.num_seeds - 1)
        return self._members.state((self._indices[index],))

    @property
    def params(self) -> PyTree:
        """Parameters, with a leading [S]."""
        return self._small.params

    def _to_act(self) -> PyTree:
        return self.params

    @property
    def epsilon(self) -> np.ndarray:
        """[S] float32, the test epsilon."""
        return np.asarray(self._small.epsilon.inference)

    @property
    def eps_training(self) -> float | np.ndarray:
        """Probability of a random action in training, now: a float, or [S] for several seeds."""
        return self._unbatched(_now(self._small.epsilon.training))

    @property
    def eps_inference(self) -> float | np.ndarray:
        """Probability of a random action in tests: a float, or [S] for several seeds."""
        return self._unbatched(self.epsilon)

    @property
    def learning_rate(self) -> float | np.ndarray:
        """Learning rate before its schedule: a float, or [S] for several seeds."""
        return self._unbatched(np.asarray(self._small.hyperparams.learning_rate))

    def set_eps_training(self, eps: Any) -> None:
        """Sets the training epsilon, in [0, 1], until it is set again."""
        eps = self._checked("epsilon", eps, 1.0)
        self._set("epsilon", "training", segment(eps, eps, 0))

    def set_eps_inference(self, eps: Any) -> None:
        """Sets the test epsilon, in [0, 1]."""
        self._set("epsilon", "inference", self._checked("epsilon", eps, 1.0))

    def set_eps(self, eps: Any) -> None:
        """Sets both epsilons (the name of Tianshou 1)."""
        self.set_eps_training(eps)
        self.set_eps_inference(eps)

    def set_eps_schedule(self, start: Any, final: Any, decay_steps: Any, env_step: Any) -> None:
        """Lets the training epsilon fall (or rise) linearly at every step from now on.

        Args:
            start: epsilon at environment step 0, in [0, 1].
            final: epsilon at and after `decay_steps`, in [0, 1].
            decay_steps: environment steps, 0 or more.
            env_step: environment steps done so far.
        """
        start, final = (self._checked("epsilon", x, 1.0) for x in (start, final))
        decay_steps = self._checked("decay_steps", decay_steps, 2.0**62, whole=True)
        env_step = self._checked("env_step", env_step, 2.0**62, whole=True)
        self._set("epsilon", "training", segment(start, final, decay_steps, env_step))

    def set_learning_rate(self, learning_rate: Any) -> None:
        """Sets the learning rate, 0 or more; a schedule goes on multiplying it."""
        value = self._checked("learning_rate", learning_rate, MAX_FLOAT)
        self._set("hyperparams", "learning_rate", value)

    @property
    def priority_beta(self) -> float | np.ndarray | None:
        """Exponent of the weights of a prioritised replay, now: a float, or [S]; None without."""
        own = self._small.hyperparams.priority_beta
        return None if own is None else self._unbatched(_now(own))

    def set_priority_beta(self, beta: Any) -> None:
        """Sets the exponent of the weights of a prioritised replay, in [0, 1], until set again.

        Raises:
            CallbackValueError: the run draws all transitions alike.
        """
        if self._small.hyperparams.priority_beta is None:
            raise CallbackValueError(
                "the run's replay has no priorities, so that there is no priority_beta to set (say "
                "priority_alpha=0.5 to train)"
            )
        beta = self._checked("priority_beta", beta, 1.0)
        self._set("hyperparams", "priority_beta", segment(beta, beta, 0))

    @property
    def env_params(self) -> dict[str, float | np.ndarray]:
        """The environment's parameters that are in the state: a float each, or [S]."""
        own = self._small.hyperparams.env_params
        return {name: self._unbatched(np.asarray(value)) for name, value in own.items()}

    def set_env_params(self, **values: Any) -> None:
        """Sets parameters of the environment that are in the state (`env_params`), from now on.

        Episodes that are running go on with the new ones, and tests are played with them, until
        they are set again.

        Args:
            **values: numbers, or arrays of one for each seed.

        Raises:
            CallbackValueError: a name that is not among those of the run's `env_params`.
        """
        old = self._small.hyperparams.env_params
        for name, value in values.items():
            if name not in old:
                raise CallbackValueError(
                    f"env_params of the run have no {shown(name)}; they have "
                    f"{', '.join(old) or 'none'} (say env_params={{{name!r}: ...}} to train)"
                )
            values[name] = self._checked(f"env_params: {name}", value, MAX_FLOAT, low=-MAX_FLOAT)
        new = {name: values.get(name, np.asarray(own)) for name, own in old.items()}
        self._set("hyperparams", "env_params", new)

    def copy_learned(self, source: int, target: int) -> None:
        """Gives a running seed the networks and the optimiser of another one.

        Args:
            source: index of the seed that is copied.
            target: index of the seed that goes on from it, with its own replay and environments.

        Raises:
            SeedIndexError: `target` has ended.
        """
        for name, index in (("source", source), ("target", target)):
            check_int(name, index, 0, self.num_seeds - 1)
        if self._indices[target] not in self._members.running:
            raise SeedIndexError(f"target={target} has ended; only seeds that run can be changed")
        self._members.copy_learned(self._indices[source], self._indices[target])

    def _set(self, group: str, field: str, values: PyTree) -> None:
        """The one way a number is set: `values` are [] or [S], one for each of our seeds."""
        self._members.set_field(self._indices, (group, field), values)

    def _unbatched(self, values: np.ndarray) -> float | np.ndarray:
        return float(values[0]) if self.num_seeds == 1 else values

    def _checked(
        self, name: str, value: Any, high: float, *, low: float = 0.0, whole: bool = False
    ) -> np.ndarray:
        is_plain = type(value) is float or (type(value) is int and value < 2**62)
        if is_plain and low <= value <= high and (not whole or value == int(value)):
            return np.asarray(value)  # an epoch of milliseconds feels what the rest takes
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise CallbackTypeError(f"{name}={shown(value)} is not a number") from error
        is_huge = isinstance(value, int) and array.dtype.kind == "O"  # beyond 64 bits
        if array.dtype.kind not in "biuf" and not is_huge:
            raise CallbackTypeError(f"{name}={shown(value)} is {kind(value)}, not a number")
        if array.shape not in ((), (self.num_seeds,)):
            raise CallbackTypeError(
                f"{name} has shape {array.shape}; expected a number or an array of {self.num_seeds}"
            )
        if is_huge:
            fits = np.False_
        else:  # float16 could not be compared with the largest float32
            exact = array.astype(np.float64)
            fits = (exact >= low) & (exact <= high) & (not whole or np.floor(exact) == exact)
        if not np.all(fits):
            limits = "whole and 0 or more" if whole else f"in [0, {high:g}]"
            limits = "finite and 0 or more" if high == MAX_FLOAT else limits
            limits = "finite" if low < 0 else limits
            raise CallbackValueError(f"{name}={shown(value)} is out of range; it must be {limits}")
        return array
