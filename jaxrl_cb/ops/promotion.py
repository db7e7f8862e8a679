"""Calls into other libraries under the promotion rules that they were written for."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def default_promotion() -> Iterator[None]:
    """JAX's default rules for mixed dtypes and ranks, whatever the user has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
