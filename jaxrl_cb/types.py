"""Records that travel between the layers. All are pytrees whose leaves are arrays.

Shapes are those of one seed: E environments, T rows of the replay ring, F slots for final
observations. Where several seeds are held together every leaf carries a leading ``[S]``, except
the lockstep scalars (`Cursor`, `TrainState.num_updates`, `TrainState.update_credit`), which are
the same for all seeds and stay scalars.
"""

from typing import Any, NamedTuple

import jax
from flax import struct

Array = jax.Array
PyTree = Any


class Experience(struct.PyTreeNode):
    """What an environment said about one step of each environment; this is stored.

    Both flags may be set at once; `terminated` then wins, as the episode ended by itself.
    """

    obs: Array  # [E, *obs] observation acted upon
    action: Array  # [E] int
    reward: Array  # [E] float32
    terminated: Array  # [E] bool, the episode ended by itself: its future is worth nothing
    truncated: Array  # [E] bool, the episode was cut short: its future still has a value
    final_obs: Array  # [E, *obs] observation after the action, before any reset


class Transition(struct.PyTreeNode):
    """What a temporal-difference target reads, of one (n-step) transition."""

    obs: Array  # [*obs]
    action: Array  # [] int
    reward: Array  # [] discounted sum of the rewards in the window
    discount: Array  # [] what `next_obs` is worth: 0 after termination, else gamma^k
    next_obs: Array  # [*obs]


class EnvStep(NamedTuple):
    """The result of one step of one environment that resets itself."""

    state: PyTree  # state to step next (of the new episode if this one ended)
    obs: Array  # [*obs] observation to act on next
    reward: Array  # [] float32, what is learned from
    terminated: Array  # [] bool
    truncated: Array  # [] bool
    final_obs: Array  # [*obs] observation that the action led to, before any reset
    score: Array  # [] float32, what episode returns are made of: the reward before any wrapper


class LinearSegment(struct.PyTreeNode):
    """A straight line over environment steps; written by callbacks, read by the scan.

    Its value is ``final`` from ``offset >= steps_left`` on, before that ``start + slope * offset``.
    """

    start: Any  # [] float32 in [0, 1]
    slope: Any  # [] float32, change per environment step
    steps_left: Any  # [] int32, environment steps until `final`
    final: Any  # [] float32 in [0, 1]
    offset: Any  # [] int32, environment steps since the segment was set


class Epsilon(struct.PyTreeNode):
    """Probability of a random action, while training and while testing."""

    training: LinearSegment
    inference: Any  # [] float32 in [0, 1]


class Hyperparams(struct.PyTreeNode):
    """Numbers that may change without a new compilation."""

    learning_rate: Any  # [] float32
    gamma: Any  # [] float32 in [0, 1]
    schedule_updates: Any  # [] int32, gradient steps until the learning-rate schedule ends
    env_params: Any = struct.field(default_factory=dict)  # by name [] float32, of the environment
    tau: Any = None  # [] float32 in (0, 1], step of a target network; 1 copies
    td_lambda: Any = None  # [] float32 in [0, 1], weight of later steps in an online target
    priority_beta: Any = None  # LinearSegment in [0, 1], of a prioritised replay


class Rollout(struct.PyTreeNode):
    """Where the training environments stand; written by the environment step."""

    env_state: PyTree  # [E, ...]
    obs: Array  # [E, *obs] observation to act on next
    episode_return: Array  # [E] float32, undiscounted, of the running episode
    episode_length: Array  # [E] int32, steps since the running episode began
    num_nonfinite: Array  # [] int32, steps so far whose reward or observation was not finite


class Cursor(struct.PyTreeNode):
    """Position in the replay ring; the same for all seeds."""

    position: Array  # [] int32 in [0, T), row that is written next
    size: Array  # [] int32 in [0, T], rows that hold data
    clock: Array  # [] int32, vector steps modulo F * (steps per slot of final observations)


class Priorities(struct.PyTreeNode):
    """How often each row of the replay is drawn, of `jaxrl_cb.buffers.PrioritizedRing`."""

    levels: tuple[Array, ...]  # of a sum tree, see `jaxrl_cb.buffers.priorities`
    greatest: Array  # [] float32, the greatest priority so far, which new rows have


class Buffer(struct.PyTreeNode):
    """Time-major replay ring; each observation is stored once. Written by `ReplayRing.add`."""

    obs: Array  # [T, E, *obs], or packed
    action: Array  # [T, E] uint8 or int32
    reward: Array  # [T, E] float32
    ending: Array  # [T, E] uint8, see `jaxrl_cb.buffers.ring`
    final_obs: Array  # [F, E, *obs] or packed, of truncated episodes only
    slot_used: Array  # [E] bool, whether the current slot holds a final observation
    num_masked: Array  # [] int32, truncations whose final observation found no slot
    num_lossy: Array  # [] int32, observations that are kept and that the declared packing changed
    cursor: Cursor
    priorities: Any = None  # `Priorities`, where rows are not all drawn alike


class OnlineBuffer(struct.PyTreeNode):
    """All that an online learner remembers of the steps before its next rollout."""

    num_masked: Array  # [] int32, truncations whose final observation found no slot


class TrainState(struct.PyTreeNode):
    """Everything that changes on the device. Saving it is saving the run's device side."""

    # written by the gradient step
    params: PyTree
    target_params: PyTree  # None where there is no target network
    opt_state: PyTree
    num_updates: Array  # [] int32, gradient steps; lockstep
    # written by the replay and by the environment step
    buffer: Any  # a Buffer, or an OnlineBuffer
    rollout: Rollout
    update_credit: Array  # [] int32, gradient steps owed, in units of 1/denominator; lockstep
    # written by callbacks, between chunks (the epsilon offset also by the scan)
    epsilon: Epsilon
    hyperparams: Hyperparams
    # written by every step
    key: Array  # [] typed key
    # never written
    test_key: Array  # [] typed key, split from the seed's; test keys are folded from it


class ChunkMetrics(NamedTuple):
    """Sums over one compiled chunk; divided on the host. A chunk of one iteration is that."""

    loss_sum: Any  # [] float32, over gradient steps
    return_sum: Any  # [] float32, undiscounted returns of the training episodes that ended
    num_episodes: Any  # [] int32
    num_masked: Any  # [] int32, see `Buffer.num_masked`; a running total
    num_lossy: Any  # [] int32, see `Buffer.num_lossy`; a running total
    num_sound_steps: Any  # [] int32, vector steps before the first one with a `num_nonfinite`
    first_bad_update: Any  # [] int32, `num_updates` after the first loss not finite, or `NEVER`
    is_params_finite: Any  # [] bool, at the chunk's end; a single step does not look


class Evaluation(NamedTuple):
    """One complete episode for each of N test environments."""

    returns: Any  # [N] float32, undiscounted
    lengths: Any  # [N] int32
    is_complete: Any  # [N] bool, False where the declared time limit did not end the episode
