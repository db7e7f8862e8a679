"""Names of the axes that an algorithm's methods are mapped over, and what depends on them."""

import jax
from jax import lax

from jaxrl_cb.types import Array

SAMPLE_AXIS = "samples"
"""Of a minibatch whose losses are differentiated: all its samples are given the same key."""

TARGET_AXIS = "targets"
"""Of a minibatch whose targets are computed: its samples share a key as well."""

ENVIRONMENT_AXIS = "environments"
"""Of what is acted upon at once: each environment is given a key of its own."""


def is_mapped(axis: str) -> bool:
    """Whether this is being mapped over an axis of that name."""
    try:
        lax.axis_index(axis)
    except NameError:
        return False
    return True


def own_key(key: Array, axis: str) -> Array:
    """A key for each element of the axis, given the one that they share; without the axis that."""
    return jax.random.fold_in(key, lax.axis_index(axis)) if is_mapped(axis) else key
