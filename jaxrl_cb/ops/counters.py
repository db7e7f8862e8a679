"""Exact counting of the gradient steps that are due, for any number of environments."""

import math
from fractions import Fraction

import jax.numpy as jnp

from jaxrl_cb.types import Array

NEVER = 2**31 - 1
"""In place of the (int32) count at which something happens that did not happen."""


def update_rate(num_envs: int, samples_per_insert: float, batch_size: int) -> Fraction:
    """Gradient steps due per vector step, exactly.

    `samples_per_insert` is taken as the decimal that the user wrote: 0.7 is 7/10, not the nearest
    binary float.
    """
    return num_envs * Fraction(str(samples_per_insert)) / batch_size


def updates_after(num_vector_steps: int, rate: Fraction) -> int:
    """Gradient steps after so many vector steps: ``floor(num_vector_steps * rate)``."""
    return num_vector_steps * rate.numerator // rate.denominator


def take_credit(credit: Array, rate: Fraction) -> tuple[Array, Array]:
    """Adds one vector step's credit and takes the whole gradient steps out of it.

    Args:
        credit: [] int32, owed so far in units of ``1 / rate.denominator``, below one step.
        rate: gradient steps per vector step.

    Returns:
        The new credit and whether one gradient step more than ``floor(rate)`` is due, [] bool.
    """
    credit = credit + rate.numerator % rate.denominator
    extra = credit >= rate.denominator
    return jnp.where(extra, credit - rate.denominator, credit), extra


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})
