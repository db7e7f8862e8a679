"""Distributions of returns: categorical on fixed atoms, and by quantiles. Unbatched."""

import chex
import jax.numpy as jnp

from jaxrl_cb.types import Array


def chosen_row(rows: Array, action: Array) -> Array:
    """``rows[action]`` of [A, N], whose gradient is no scatter (see `targets.chosen`)."""
    is_chosen = jnp.arange(len(rows), dtype=action.dtype) == action
    return jnp.sum(jnp.where(is_chosen[:, None], rows, 0.0), axis=0)


def projected(probs: Array, values: Array, atoms: Array) -> Array:
    """Mass at any values, shared among evenly spaced atoms (Bellemare et al. 2017, eq. 7).

    Args:
        probs: [N], the mass.
        values: [N], where it is; beyond the ends of the atoms it counts to the ends.
        atoms: [M], ascending.

    Returns:
        [M] mass of each atom.
    """
    chex.assert_rank([probs, values, atoms], 1)
    spacing = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    inside = jnp.clip(values, atoms[0], atoms[-1])
    distance = jnp.abs(inside[None, :] - atoms[:, None]) / spacing
    return jnp.sum(jnp.clip(1.0 - distance, 0.0, 1.0) * probs[None, :], axis=1)


def midpoints(count: int) -> Array:
    """[N] fractions in the middle of N equal parts of [0, 1] (Dabney et al. 2018, lemma 2)."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


def quantile_huber(quantiles: Array, fractions: Array, targets: Array) -> tuple[Array, Array]:
    """The quantile Huber loss with threshold 1 (Dabney et al. 2018, QR-DQN eq. 10; IQN eq. 3).

    ``sum_i mean_j |fraction_i - 1[u_ij < 0]| huber(u_ij)`` with ``u_ij = target_j - quantile_i``.

    Args:
        quantiles: [N], that are learned.
        fractions: [N], of which they are the quantiles.
        targets: [M], samples of the return.

    Returns:
        The loss [] and the mean of ``|u|`` [].
    """
    chex.assert_rank([quantiles, fractions, targets], 1)
    error = targets[None, :] - quantiles[:, None]
    magnitude = jnp.abs(error)
    inside = jnp.minimum(magnitude, 1.0)
    huber = 0.5 * inside**2 + (magnitude - inside)
    weight = jnp.abs(fractions[:, None] - (error < 0).astype(jnp.float32))
    return jnp.sum(jnp.mean(weight * huber, axis=1)), jnp.mean(magnitude)
