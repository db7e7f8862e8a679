"""Environments whose true action values are known, each of which isolates one thing.

The first five are Andy Jones's probes ("Debugging RL, Without the Agonizing Pain"); the last two
are about truncation. In all of them both actions lead to the same state. So the values hold under
any policy, and for any n of n-step returns but in ``delayed_reward(of_action=True)``: n = 1.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.envs import functional


def constant_reward():
    """One step, one observation, reward 1: Q = 1. Shows that the loss can fit at all."""

    def reset(key):
        return jnp.int32(0), jnp.zeros((1,), jnp.float32)

    def step(key, state, action):
        return state, jnp.zeros((1,), jnp.float32), 1.0, True, False

    return functional(reset, step, num_actions=2, time_limit=1, id="constant-reward")


def reward_of_observation():
    """One step, observation and reward are the same coin, -1 or 1: Q(x) = x."""

    def reset(key):
        side = _coin(key)
        return side, side[None]

    def step(key, side, action):
        return side, side[None], side, True, False

    return functional(reset, step, num_actions=2, time_limit=1, id="reward-of-observation")


def delayed_reward(*, of_action=False):
    """Observation 0, then 1, then the end with reward 1: Q(1) = 1 and Q(0) = gamma.

    With `of_action` it is -1 for action 0 and 1 for action 1: Q(1) = (-1, 1), and Q(0) is gamma for
    both actions.
    """

    def reset(key):
        return jnp.int32(0), jnp.zeros((1,), jnp.float32)

    def step(key, time, action):
        time = time + 1
        over = time == 2
        obs = time.astype(jnp.float32)[None]
        paid = 2.0 * action.astype(jnp.float32) - 1.0 if of_action else 1.0
        return time, obs, jnp.where(over, paid, 0.0), over, jnp.bool_(False)

    return functional(reset, step, num_actions=2, time_limit=2, id="delayed-reward")


def reward_of_action():
    """One step, reward -1 for action 0 and 1 for action 1: Q = (-1, 1)."""

    def reset(key):
        return jnp.int32(0), jnp.zeros((1,), jnp.float32)

    def step(key, state, action):
        return state, jnp.zeros((1,), jnp.float32), 2 * action - 1, True, False

    return functional(reset, step, num_actions=2, time_limit=1, id="reward-of-action")


def reward_of_action_and_observation():
    """One step, reward 1 if the action fits the coin, else -1: Q(1) = (-1, 1), Q(-1) = (1, -1)."""

    def reset(key):
        side = _coin(key)
        return side, side[None]

    def step(key, side, action):
        chosen = (2 * action - 1).astype(jnp.float32)
        return side, side[None], side * chosen, True, False

    return functional(reset, step, num_actions=2, time_limit=1, id="reward-of-both")


def ring_of_places(rewards, starts, time_limit):
    """A walk round a ring of places that never ends by itself; a time limit cuts it.

    Each step goes from place p to place p + 1 (mod N) and pays ``rewards[p]``. The observation is
    the place, one-hot. Every place is a start or passed through, the final ones too, so that all
    values are learned from data and none from what the network makes of an unseen observation.

    Args:
        rewards: [N], for leaving each place.
        starts: places where an episode may begin, equally likely.
        time_limit: steps of every episode.
    """
    rewards, starts = np.array(rewards, np.float32), np.array(starts, np.int32)
    num_places = len(rewards)

    def observe(place):
        return jax.nn.one_hot(place, num_places, dtype=jnp.float32)

    def reset(key):
        place = jnp.asarray(starts)[_random_below(key, len(starts))]
        return (place, jnp.int32(0)), observe(place)

    def step(key, state, action):
        place, time = state
        after, time = (place + 1) % num_places, time + 1
        return (after, time), observe(after), jnp.asarray(rewards)[place], False, time == time_limit

    return functional(reset, step, num_actions=2, time_limit=time_limit, id="ring-of-places")


def endless():
    """Reward 1 for ever, cut every 5 steps: Q = 1 / (1 - gamma) everywhere.

    Ten places; episodes begin at 0 and at 5, so the place modulo 5 is the step of the episode, and
    the final observation (5 or 0) is the first one of the other half's episodes.

    gamma 0.9: 10 everywhere. If truncation counted as death, place p would be worth only the
    5 - p % 5 rewards that are left, 1 + 0.9 + ...: from 4.0951 at the first step to 1 at the last.
    """
    return ring_of_places([1] * 10, starts=[0, 5], time_limit=5)


def reset_elsewhere():
    """Three places, reward 1 for leaving place 2; from place 0, cut every 5 steps.

    An episode is at places 0, 1, 2, 0, 1 and its final observation is place 2, while the next
    episode begins at place 0. With g = gamma, the walk without a cut has
    V2 = 1 + g V0, V0 = g V1, V1 = g V2, so V2 = 1 / (1 - g^3), V1 = g V2, V0 = g^2 V2:
    at 0.9, V = (2.9889, 3.3210, 3.6900). A cut changes nothing of this, as it is not of the world.

    Of the two visits of place 1, the second is cut. What a learner finds that gets it wrong:
    - death: V1 = g V2 / 2, hence V2 = 1 / (1 - g^3 / 2) = 1.5736, V1 = 0.7081, V0 = 0.6373;
    - the next episode's first observation in place of the final one: V1 = g (V2 + V0) / 2, hence
      V1 = (g + g^2 V1 g) / 2 + g^2 V1 / 2, V1 = (g / 2) / (1 - g^3 / 2 - g^2 / 2) = 1.9523,
      V0 = 1.7570, V2 = 2.5813.
    """
    return ring_of_places([0, 0, 1], starts=[0], time_limit=5)


def _coin(key):
    return (2 * _random_below(key, 2) - 1).astype(jnp.float32)


def _random_below(key, bound):
    return (jax.random.bits(key, (), jnp.uint32) % bound).astype(jnp.int32)
