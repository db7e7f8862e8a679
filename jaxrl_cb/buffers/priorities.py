"""Drawing from many weights, and changing some, on the device: a sum tree of 8 branches.

Each node is the sum of its children, so that a draw goes from the root to a leaf and a change from
a leaf to the root: O(log n) of reads either way. Of trees of 2 to 64 branches that of 8
was fastest on CPU at any size (`benchmarks/sum_trees.py`): fewer branches make more levels, more
branches more children to add up.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrl_cb.ops.randomness import uniform
from jaxrl_cb.types import Array

BRANCHES = 8

Levels = tuple[Array, ...]
"""Leaves [n] first, then sums of `BRANCHES` each, up to a level of `BRANCHES`; float32."""


@dataclasses.dataclass(frozen=True)
class SumTree:
    """A tree over `num_leaves` weights, none of them negative.

    Attributes:
        num_leaves: below 2^31.
    """

    num_leaves: int

    @property
    def sizes(self) -> list[int]:
        """Numbers in each level, a multiple of `BRANCHES`; what is beyond the last leaf is 0."""
        sizes = [_padded(self.num_leaves)]
        while sizes[-1] > BRANCHES:
            sizes.append(_padded(sizes[-1] // BRANCHES))
        return sizes

    def init(self) -> Levels:
        """All weights 0."""
        return tuple(jnp.zeros((size,), jnp.float32) for size in self.sizes)

    def draw(self, levels: Levels, words: Array) -> Array:
        """Draws leaves, each with a probability proportional to its weight.

        Args:
            levels: of which some leaf is not 0.
            words: [number of levels, ...] uint32, random.

        Returns:
            [...] int32.
        """
        place = jnp.zeros(words.shape[1:], jnp.int32)
        for level, own in zip(reversed(levels), words, strict=True):
            place = place * BRANCHES + _chosen(_children(level, place), uniform(own))
        return place

    def changed(self, levels: Levels, leaves: Array, weights: Array) -> Levels:
        """Other weights for some leaves; where one is named twice, the greatest.

        Args:
            levels: before.
            leaves: [N] int32; those beyond all leaves change nothing.
            weights: [N] float32.
        """
        first = levels[0].at[leaves].set(0.0, mode="drop").at[leaves].max(weights, mode="drop")
        return self._summed((first, *levels[1:]), leaves)

    def filled(self, levels: Levels, count: int, *rows: tuple[Array, Array]) -> Levels:
        """The same weight for `count` leaves in a row, and for other such rows.

        Args:
            levels: before.
            count: leaves of each row.
            rows: of each, the first leaf ([] int32) and the weight ([] float32).
        """
        # All are written before any is read: between the two the compiler would copy the leaves.
        first, *above = levels
        for start, weight in rows:
            row = jnp.full((count,), weight, jnp.float32)
            first = lax.dynamic_update_slice(first, row, (start,))
        steps = np.arange(0, count + BRANCHES - 1, BRANCHES, dtype=np.int32)
        steps = np.minimum(steps, count - 1)  # a leaf below each node, or twice the last
        touched = jnp.concatenate([start + steps for start, _ in rows])
        return self._summed((first, *above), touched)

    def _summed(self, levels: Levels, places: Array) -> Levels:
        """The sums above leaves that have changed."""
        below, *above = levels
        done = [below]
        for level in above:
            is_none = places >= len(done[-1])
            places = places // BRANCHES
            sums = jnp.sum(_children(done[-1], places), axis=-1)
            places = jnp.where(is_none, len(level), places)
            done.append(level.at[places].set(sums, mode="drop"))
        return tuple(done)


def _padded(count: int) -> int:
    return -(-count // BRANCHES) * BRANCHES


def _children(level: Array, places: Array) -> Array:
    """[..., BRANCHES] the numbers below nodes of the level above."""
    return level.reshape(-1, BRANCHES).at[places].get(mode="clip")


def _chosen(weights: Array, fraction: Array) -> Array:
    """Which of the last axis is drawn, none whose weight is 0.

    The sums are made one by one, in this order, so that a weight of 0 adds nothing to the one
    before it, which sums made in pairs do not promise.

    Args:
        weights: [..., BRANCHES].
        fraction: [...] in [0, 1), of the sum of all.
    """
    sums = [weights[..., 0]]
    for branch in range(1, BRANCHES):
        sums.append(sums[-1] + weights[..., branch])
    point = fraction * sums[-1]
    return jnp.sum(jnp.stack([total <= point for total in sums[:-1]]), axis=0, dtype=jnp.int32)
