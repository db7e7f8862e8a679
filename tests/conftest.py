"""Settings of all tests: strict types in our own mathematics, and a counter of compilations."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

_compiles = {"count": 0}


def _count(event: str, duration: float, **kwargs) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiles["count"] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture
def compiles():
    """A function that gives the number of compilations since the last call (or the start)."""
    last = _compiles["count"]

    def since():
        nonlocal last
        new, last = _compiles["count"] - last, _compiles["count"]
        return new

    return since
