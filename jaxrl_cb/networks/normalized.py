"""Networks that see normalised observations."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxrl_cb.ops.statistics import Moments, merged, no_moments
from jaxrl_cb.types import Array, PyTree

COLLECTION = "obs_stats"


@dataclasses.dataclass(frozen=True)
class Normalized:
    """Subtracts the running mean of all observations and divides by their deviation.

    The statistics are a collection of the variables of their own, so that they are part of the
    state, travel with the policy, and act in tests as they do in training. They grow with every
    observation that is acted upon, prefill included, and no gradient changes them.

    Attributes:
        network: a flax module, or anything whose ``init`` gives flax's collections.
        limit: normalised observations are clipped to [-limit, limit].
    """

    network: Any
    limit: float = 10.0

    def init(self, key: Array, obs: Array, *more: Array) -> PyTree:
        variables = self.network.init(key, obs, *more)
        return {**variables, COLLECTION: dict(vars(no_moments(obs.shape)))}

    @property
    def noisy(self) -> bool:
        """Whether the network takes random numbers."""
        return getattr(self.network, "noisy", False)

    def apply(self, variables: PyTree, obs: Array, *more: Array, **options: Any) -> Array:
        own = Moments(**variables[COLLECTION])
        others = {name: value for name, value in variables.items() if name != COLLECTION}
        obs = (obs.astype(jnp.float32) - own.mean) * lax.rsqrt(own.variance + 1e-8)
        obs = jnp.clip(obs, -self.limit, self.limit)
        return self.network.apply(others, obs, *more, **options)

    def observe(self, variables: PyTree, obs: Array) -> PyTree:
        """The variables after more observations, [E, *obs]."""
        obs = obs.astype(jnp.float32)
        mean, variance = jnp.mean(obs, axis=0), jnp.var(obs, axis=0)
        batch = Moments(count=jnp.float32(len(obs)), mean=mean, variance=variance)
        moments = merged(Moments(**variables[COLLECTION]), batch)
        return {**variables, COLLECTION: dict(vars(moments))}
