"""Observations of zeros and ones as bits."""

import dataclasses
import math

import jax.numpy as jnp

from jaxrl_cb.types import Array


@dataclasses.dataclass(frozen=True)
class BitPacking:
    """Keeps an observation in one bit per element; lossless iff all are 0 or 1.

    Attributes:
        shape: of one observation.
        dtype: of one observation.
    """

    shape: tuple[int, ...]
    dtype: str

    def pack(self, obs: Array) -> Array:
        """[..., *shape] to [..., ceil(size / 8)] uint8."""
        leading = obs.shape[: obs.ndim - len(self.shape)]
        return jnp.packbits(obs.reshape(*leading, -1) != 0, axis=-1)

    def unpack(self, packed: Array) -> Array:
        """[..., ceil(size / 8)] uint8 to [..., *shape]."""
        bits = jnp.unpackbits(packed, axis=-1, count=math.prod(self.shape))
        return bits.reshape(*packed.shape[:-1], *self.shape).astype(self.dtype)

    def is_lossy(self, obs: Array) -> Array:
        """[E] bool, whether observations [E, *shape] have other elements than 0 and 1."""
        return jnp.any((obs != 0) & (obs != 1), axis=tuple(range(1, obs.ndim)))


@dataclasses.dataclass(frozen=True)
class NoPacking:
    """Keeps observations as they are."""

    def pack(self, obs: Array) -> Array:
        return obs

    def unpack(self, packed: Array) -> Array:
        return packed

    def is_lossy(self, obs: Array) -> Array:
        return jnp.zeros(obs.shape[:1], bool)


Packing = BitPacking | NoPacking
UNPACKED = NoPacking()
