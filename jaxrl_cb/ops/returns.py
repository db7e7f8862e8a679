"""The one door from what an environment said to what a target reads."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from jaxrl_cb.types import Array, Transition


def n_step_transition(
    obs: Array,
    action: Array,
    rewards: Array,
    *,
    terminated: Array,
    truncated: Array,
    next_obs_after: Callable[[Array], Array],
    gamma: Array,
) -> Transition:
    """The (n-step) transition that begins at the first row of a window (Sutton & Barto, eq. 7.1).

    The window is cut at the first row that ends an episode. With k <= n rows left,
    ``reward = sum_i gamma^i r_i`` and ``discount = gamma^k``, or 0 if that row terminated. A
    truncated episode still has a future: its true final observation is bootstrapped from.

    Args:
        obs: [*obs] observation of the first row.
        action: [] action of the first row.
        rewards: [n] rewards; those behind the cut are ignored.
        terminated: [n] bool.
        truncated: [n] bool.
        next_obs_after: maps a row number (0..n-1) to the observation that its action led to.
        gamma: [] discount per step, in [0, 1].
    """
    n = rewards.shape[0]
    ended = terminated | truncated
    last = jnp.where(jnp.any(ended), jnp.argmax(ended), n - 1).astype(jnp.int32)
    gammas = gamma ** jnp.arange(n + 1, dtype=jnp.float32)
    inside = jnp.arange(n, dtype=jnp.int32) <= last
    return Transition(
        obs=obs,
        action=action,
        reward=jnp.sum(jnp.where(inside, gammas[:n] * rewards, 0.0)),
        discount=jnp.where(terminated[last], 0.0, gammas[last + 1]),
        next_obs=next_obs_after(last),
    )


def lambda_returns(
    rewards: Array,
    next_values: Array,
    *,
    terminated: Array,
    cut: Array,
    gamma: Array,
    td_lambda: Array,
) -> Array:
    """Peng's Q(lambda) of a rollout (Peng & Williams 1996), as PQN has it.

    ``G_t = r_t + gamma [(1 - lambda) V(s_t+1) + lambda G_t+1]``, with V(s) the greatest action
    value; ``r_t`` alone where the episode terminated, and ``r_t + gamma V(s_t+1)`` where what
    follows is not known: at the rollout's end, and where an episode was truncated.

    Args:
        rewards: [T, ...].
        next_values: [T, ...] values of the states that the actions led to, of a truncated
            episode that of its true final observation.
        terminated: [T, ...] bool.
        cut: [T, ...] bool, where the row after does not continue this one.
        gamma: [] discount per step, in [0, 1].
        td_lambda: [] in [0, 1].

    Returns:
        [T, ...].
    """

    def back(later: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, value, ends, is_cut = row
        future = jnp.where(is_cut, value, (1 - td_lambda) * value + td_lambda * later)
        own = reward + jnp.where(ends, 0.0, gamma * future)
        return own, own

    rows = (rewards, next_values, terminated, cut)
    return lax.scan(back, next_values[-1], rows, reverse=True)[1]
