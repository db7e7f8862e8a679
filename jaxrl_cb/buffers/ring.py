"""A time-major replay ring that stores each observation once.

The observation after row t is row t + 1's own, or `Rollout.obs` for the newest row. Only where an
episode was truncated is the true final observation needed as well. A time limit of L steps cuts an
environment at most once in any L vector steps, so all final observations of a block of L vector
steps share one slot per environment, and F = ceil(T / L) + 1 slots outlive the ring's T rows.
Without a fixed time limit L is 1: each row has its own slot.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_cb.ops.packing import UNPACKED, Packing
from jaxrl_cb.ops.randomness import below
from jaxrl_cb.ops.returns import n_step_transition
from jaxrl_cb.types import Array, Buffer, Cursor, Experience, Rollout, Transition

CONTINUES, TERMINATED, TRUNCATED, MASKED = range(4)
"""Values of `Buffer.ending`. A masked row was truncated, but its final observation is not kept (two
truncations within one declared time limit); windows that end there have no weight."""


class Draw(NamedTuple):
    """Drawn n-step transitions; all fields [count, B]."""

    transition: Transition
    weight: Array  # float32; 0 where the end is not known
    place: "Place | None"  # where rows are not all drawn alike


class Place(NamedTuple):
    """Where the first rows of windows are; both fields alike."""

    leaf: Array  # int32, row * E + environment
    priority: Array  # float32, that they were drawn by


class Surprises(NamedTuple):
    """How surprising what was drawn has been; all fields alike."""

    leaf: Array  # int32, `Place.leaf`
    error: Array  # float32, 0 or more
    weight: Array  # float32, `Draw.weight`
    drawn: Array  # bool, false where nothing was drawn


@dataclasses.dataclass(frozen=True)
class Window:
    """n rows of one environment, oldest first, as `n_step_transition` reads them."""

    obs: Array  # [*obs] of the first row
    action: Array  # [] int32 of the first row
    rewards: Array  # [n] float32
    ending: Array  # [n] uint8


@dataclasses.dataclass(frozen=True)
class ReplayRing:
    """Replay of `num_rows` (T) vector steps of `num_envs` (E) environments.

    Attributes:
        num_rows: T, rows; the capacity is T * E transitions.
        num_envs: E.
        time_limit: steps between two truncations of an environment at least; None if unknown.
        packing: how observations are kept.
    """

    num_rows: int
    num_envs: int
    time_limit: int | None = None
    packing: Packing = UNPACKED

    @property
    def num_words(self) -> int:
        """Random words that drawing one window takes."""
        return 2

    @property
    def _block(self) -> int:
        return min(self.time_limit or 1, self.num_rows)

    @property
    def num_slots(self) -> int:
        """F, slots of final observations per environment."""
        return -(-self.num_rows // self._block) + 1

    def init(self, obs: Array, num_actions: int) -> Buffer:
        """An empty buffer for observations shaped and typed like `obs` ([*obs])."""
        rows, envs = self.num_rows, self.num_envs
        packed = jax.eval_shape(self.packing.pack, obs)
        action_dtype = jnp.uint8 if num_actions <= 256 else jnp.int32
        return Buffer(
            obs=jnp.zeros((rows, envs, *packed.shape), packed.dtype),
            action=jnp.zeros((rows, envs), action_dtype),
            reward=jnp.zeros((rows, envs), jnp.float32),
            ending=jnp.zeros((rows, envs), jnp.uint8),
            final_obs=jnp.zeros((self.num_slots, envs, *packed.shape), packed.dtype),
            slot_used=jnp.zeros((envs,), bool),
            num_masked=jnp.int32(0),
            num_lossy=jnp.int32(0),
            cursor=Cursor(position=jnp.int32(0), size=jnp.int32(0), clock=jnp.int32(0)),
        )

    def add(self, buffer: Buffer, experience: Experience) -> Buffer:
        """Writes one row over the oldest one: one vector step of [E] environments."""
        cursor = buffer.cursor
        slot, step_in_block = self._slot(cursor.clock), lax.rem(cursor.clock, self._block)
        slot_used = buffer.slot_used & (step_in_block != 0)
        truncated = experience.truncated & ~experience.terminated
        masked = truncated & slot_used
        stored = truncated & ~slot_used
        ending = jnp.where(truncated, jnp.where(masked, MASKED, TRUNCATED), CONTINUES)
        ending = jnp.where(experience.terminated, TERMINATED, ending).astype(jnp.uint8)
        final_obs, final_lossy = self._final_row(
            stored, experience.final_obs, buffer.final_obs[slot]
        )
        lossy = self.packing.is_lossy(experience.obs) | final_lossy
        row = cursor.position
        return buffer.replace(
            obs=_write(buffer.obs, self.packing.pack(experience.obs), row),
            action=_write(buffer.action, experience.action.astype(buffer.action.dtype), row),
            reward=_write(buffer.reward, experience.reward, row),
            ending=_write(buffer.ending, ending, row),
            final_obs=_write(buffer.final_obs, final_obs, slot),
            slot_used=slot_used | stored,
            num_masked=buffer.num_masked + jnp.sum(masked, dtype=jnp.int32),
            num_lossy=buffer.num_lossy + jnp.sum(lossy, dtype=jnp.int32),
            cursor=Cursor(
                position=lax.rem(row + 1, self.num_rows),
                size=jnp.minimum(cursor.size + 1, self.num_rows),
                clock=lax.rem(cursor.clock + 1, self._block * self.num_slots),
            ),
        )

    def _final_row(self, stored: Array, final_obs: Array, old: Array) -> tuple[Array, Array]:
        """A slot's row of final observations after a vector step, and where packing lost numbers.

        Args:
            stored: [E] bool, environments whose final observation is kept.
            final_obs: [E, *obs].
            old: [E, ...] the slot's row before, as it is kept.
        """

        def kept():
            packed = self.packing.pack(final_obs)
            where_stored = stored.reshape(stored.shape + (1,) * (packed.ndim - 1))
            return jnp.where(where_stored, packed, old), stored & self.packing.is_lossy(final_obs)

        def branch():
            return lax.cond(jnp.any(stored), kept, lambda: (old, jnp.zeros_like(stored)))

        if self.packing == UNPACKED:
            return kept()
        # Packing is dear, and rarely is there anything to keep; a GPU's branch would wait.
        return lax.platform_dependent(cpu=branch, default=kept)

    def sample(
        self, words: Array, buffer: Buffer, rollout: Rollout, *, n: int, gamma: Array
    ) -> Draw:
        """Draws n-step transitions.

        Args:
            words: [`num_words`, count, B] uint32, random.
            buffer: what to draw from; holds at least n rows.
            rollout: where the environments stand after the newest row.
            n: steps.
            gamma: [] discount per step.

        Returns:
            A draw [count, B].
        """
        return self._unpacked(self._sample_packed(words, buffer, rollout, n=n, gamma=gamma))

    def _sample_packed(
        self, words: Array, buffer: Buffer, rollout: Rollout, *, n: int, gamma: Array
    ) -> Draw:
        """`sample` with observations as they are kept."""
        age, env = self.sample_starts(words, buffer, rollout.episode_length, n=n)
        newest = self.packing.pack(rollout.obs)

        def transition(age, env):
            window = self._packed_window(buffer, age, env, n=n)
            result = n_step_transition(
                window.obs,
                window.action,
                window.rewards,
                terminated=window.ending == TERMINATED,
                truncated=(window.ending == TRUNCATED) | (window.ending == MASKED),
                next_obs_after=lambda last: self._packed_next(buffer, newest, age - last, env),
                gamma=gamma,
            )
            return result, self.weight(window)

        drawn, weight = jax.vmap(jax.vmap(transition))(age, env)
        return Draw(drawn, weight, self._place(buffer, age, env))

    def _unpacked(self, draw: Draw) -> Draw:
        unpack, packed = self.packing.unpack, draw.transition
        own = packed.replace(obs=unpack(packed.obs), next_obs=unpack(packed.next_obs))
        return draw._replace(transition=own)

    def sample_behind_branch(
        self, words: Array, buffer: Buffer, rollout: Rollout, *, n: int, gamma: Array
    ) -> Draw:
        """`sample`, for a loop that has just written to the buffer.

        On CPU it is within a branch that is always taken, which the compiler cannot know. Without
        it the write of the newest row is fused into the reads, and the ring copied at every step.
        A GPU's compiler copies nothing, and a branch would wait for the host there. Observations
        leave the branch as they are kept, since what leaves it is written to memory.
        """

        def sample():
            return self._sample_packed(words, buffer, rollout, n=n, gamma=gamma)

        def nothing():
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sample))

        def branch():
            return lax.cond(buffer.cursor.size >= n, sample, nothing)

        return self._unpacked(lax.platform_dependent(cpu=branch, default=sample))

    def _place(self, buffer: Buffer, age: Array, env: Array) -> Place | None:
        return None

    def weighted(self, draw: Draw, beta: Array) -> Draw:
        """A draw with the weights that make up for drawing some more often: none, here."""
        return draw

    def surprises(self, draw: Draw, errors: Array) -> Surprises | None:
        """What `learned` wants to know of a draw [count, B]: nothing, here."""
        return None

    def unsurprised(self, shape: tuple[int, ...]) -> Surprises | None:
        """`surprises`, where nothing was drawn."""
        return None

    def learned(self, buffer: Buffer, surprises: Any) -> Buffer:
        """The buffer after gradient steps; nothing was added to it since the draw.

        Args:
            buffer: drawn from.
            surprises: of those steps, what `surprises` gave.
        """
        return buffer

    def sample_starts(
        self, words: Array, buffer: Buffer, episode_length: Array, *, n: int
    ) -> tuple[Array, Array]:
        """Draws windows whose n rows, up to an episode's end, are all stored. O(number drawn).

        An environment is drawn uniformly, then one of its valid starts uniformly. The only
        starts not valid are the newest min(n - 1, rows of the running episode) of each
        environment; none is lost because an episode ends.

        Args:
            words: [`num_words`, ...] uint32, random.
            buffer: what to draw from; holds at least n rows.
            episode_length: [E] int32, stored rows of the running episodes, or more.
            n: rows of a window.

        Returns:
            Two int32 arrays [...]: the age of the first row (1 is the newest) and the
            environment.
        """
        env = below(words[0], jnp.int32(self.num_envs))
        unfinished = jnp.minimum(episode_length, n - 1)[env] if n > 1 else jnp.zeros_like(env)
        return unfinished + 1 + below(words[1], buffer.cursor.size - unfinished), env

    def window(self, buffer: Buffer, age: Array, env: Array, *, n: int) -> Window:
        """The n rows that begin `age` rows before the write position. Unbatched."""
        packed = self._packed_window(buffer, age, env, n=n)
        return dataclasses.replace(packed, obs=self.packing.unpack(packed.obs))

    def _packed_window(self, buffer: Buffer, age: Array, env: Array, *, n: int) -> Window:
        rows = self._row(buffer, age - jnp.arange(n, dtype=jnp.int32))
        return Window(
            obs=_read(buffer.obs, rows[0], env),
            action=_read(buffer.action, rows[0], env).astype(jnp.int32),
            rewards=_read(buffer.reward, rows, env),
            ending=_read(buffer.ending, rows, env),
        )

    def weight(self, window: Window) -> Array:
        """0 if the window meets a masked row before an episode's end, else 1. [] float32."""
        ended = window.ending != CONTINUES
        first = window.ending[jnp.argmax(ended)]
        return jnp.where(first == MASKED, 0.0, 1.0).astype(jnp.float32)

    def next_obs(self, buffer: Buffer, newest_obs: Array, age: Array, env: Array) -> Array:
        """The observation that the action of a row led to. Unbatched.

        Args:
            buffer: the replay.
            newest_obs: [E, *obs], `Rollout.obs`: what follows the newest row.
            age: [] int32 of the row; 1 is the newest.
            env: [] int32.

        Returns:
            [*obs], the true final observation if the row was truncated.
        """
        newest = self.packing.pack(newest_obs)
        return self.packing.unpack(self._packed_next(buffer, newest, age, env))

    def _packed_next(self, buffer: Buffer, newest: Array, age: Array, env: Array) -> Array:
        period = self._block * self.num_slots
        slot = self._slot(lax.rem(buffer.cursor.clock - age + period, period))
        following = _read(buffer.obs, self._row(buffer, age - 1), env)
        truncated = _read(buffer.ending, self._row(buffer, age), env) == TRUNCATED
        stored = jnp.where(truncated, _read(buffer.final_obs, slot, env), following)
        is_newest = (age == 1) & ~truncated
        return jnp.where(is_newest, newest[env], stored)

    def _slot(self, clock: Array) -> Array:
        return lax.div(clock, self._block)

    def _row(self, buffer: Buffer, age: Array) -> Array:
        # Within [0, T): windows of valid starts may look past the head, never by a whole ring.
        return lax.rem(buffer.cursor.position - age + 2 * self.num_rows, self.num_rows)


def _write(array: Array, row: Array, index: Array) -> Array:
    return lax.dynamic_update_index_in_dim(array, row, index, axis=0)


def _read(array: Array, row: Array, env: Array) -> Array:
    return array.at[row, env].get(mode="promise_in_bounds")
