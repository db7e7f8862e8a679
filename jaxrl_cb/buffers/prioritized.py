"""Prioritised replay (Schaul et al. 2016)."""

import dataclasses
from typing import cast

import jax.numpy as jnp
from jax import lax

from jaxrl_cb.buffers.priorities import SumTree
from jaxrl_cb.buffers.ring import Draw, Place, ReplayRing, Surprises
from jaxrl_cb.types import Array, Buffer, Experience, Priorities

LEAST_ERROR = 1e-6
"""Added to errors, so that a transition without one is drawn again some day."""


@dataclasses.dataclass(frozen=True)
class PrioritizedRing(ReplayRing):
    """A ring whose windows are drawn as often as they were surprising, proportionally.

    A window can be drawn from when its n-th row is there (its weight is 0 before), at first with
    the greatest priority that there was. All of one vector step's minibatches are drawn from the
    priorities at its beginning; what they say of their windows is written at its end.

    Attributes:
        n_step: n, rows of a window.
        alpha: exponent of the error in (0, 1].
    """

    n_step: int = 1
    alpha: float = 0.5

    @property
    def _tree(self) -> SumTree:
        return SumTree(self.num_rows * self.num_envs)

    @property
    def num_words(self) -> int:
        return len(self._tree.sizes)

    def init(self, obs: Array, num_actions: int) -> Buffer:
        priorities = Priorities(levels=self._tree.init(), greatest=jnp.float32(1.0))
        return super().init(obs, num_actions).replace(priorities=priorities)

    def add(self, buffer: Buffer, experience: Experience) -> Buffer:
        old, row = buffer.priorities, buffer.cursor.position
        buffer = super().add(buffer, experience)
        begins = lax.rem(row - self.n_step + 1 + self.num_rows, self.num_rows)
        is_whole = buffer.cursor.size >= self.n_step
        rows = [(begins, jnp.where(is_whole, old.greatest, 0.0))]
        if self.n_step > 1:
            rows = [(row, jnp.float32(0.0)), *rows]
        count = self.num_envs
        levels = self._tree.filled(old.levels, count, *((r * count, w) for r, w in rows))
        return buffer.replace(priorities=old.replace(levels=levels))

    def sample_starts(
        self, words: Array, buffer: Buffer, episode_length: Array, *, n: int
    ) -> tuple[Array, Array]:
        """Draws windows by priority; words are [`num_words`, ...], the rest is as in the ring."""
        leaf = self._tree.draw(buffer.priorities.levels, words)
        row, env = lax.div(leaf, self.num_envs), lax.rem(leaf, self.num_envs)
        return lax.rem(buffer.cursor.position - row + self.num_rows - 1, self.num_rows) + 1, env

    def _place(self, buffer: Buffer, age: Array, env: Array) -> Place:
        # Read here, with what is drawn: later than what writes priorities needs it, it would have
        # the compiler copy all of them.
        leaf = self._row(buffer, age) * self.num_envs + env
        return Place(leaf, buffer.priorities.levels[0].at[leaf].get(mode="promise_in_bounds"))

    def weighted(self, draw: Draw, beta: Array) -> Draw:
        """With weights times ``(P_i / min P)^-beta``, the least P being of the minibatch.

        That is ``(N P_i)^-beta`` over its greatest (Schaul et al. 2016, section 3.4).

        Args:
            draw: [count, B].
            beta: [] in [0, 1].
        """
        priority = cast(Place, draw.place).priority
        ratio = priority / jnp.min(priority, axis=-1, keepdims=True)
        return draw._replace(weight=draw.weight * ratio**-beta)

    def surprises(self, draw: Draw, errors: Array) -> Surprises:
        """What `learned` wants to know of a draw [count, B].

        Args:
            draw: what was learned from.
            errors: [count, B], 0 or more.
        """
        drawn = jnp.ones(errors.shape, bool)
        return Surprises(cast(Place, draw.place).leaf, errors, draw.weight, drawn)

    def unsurprised(self, shape: tuple[int, ...]) -> Surprises:
        zeros = jnp.zeros(shape, jnp.float32)
        return Surprises(zeros.astype(jnp.int32), zeros, zeros, zeros.astype(bool))

    def learned(self, buffer: Buffer, surprises: Surprises) -> Buffer:
        """Priorities after gradient steps; nothing was added to the buffer since the draw."""
        leaf, error, weight, drawn = (x.ravel() for x in surprises)
        old = buffer.priorities
        priority = (error + LEAST_ERROR) ** self.alpha
        priority = jnp.where(jnp.isfinite(priority), priority, old.greatest)
        # Where the weight is 0 nobody will ever know what came after it.
        priority = jnp.where(drawn & (weight > 0), priority, 0.0)
        levels = self._tree.changed(
            old.levels, jnp.where(drawn, leaf, len(old.levels[0])), priority
        )
        greatest = jnp.maximum(old.greatest, jnp.max(priority))
        return buffer.replace(priorities=Priorities(levels=levels, greatest=greatest))
