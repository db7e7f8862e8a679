"""Losses of one temporal-difference error."""

import jax.numpy as jnp

from jaxrl_cb.types import Array


def squared(error: Array) -> Array:
    """``error^2 / 2``."""
    return 0.5 * error**2


def huber(error: Array) -> Array:
    """Huber's loss with threshold 1: squared within, linear outside (Mnih et al. 2015)."""
    magnitude = jnp.abs(error)
    inside = jnp.minimum(magnitude, 1.0)
    return 0.5 * inside**2 + (magnitude - inside)


LOSSES = {"squared": squared, "huber": huber}
