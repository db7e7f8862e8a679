"""Settings of all tests: strict types in our own mathematics, compilations counted, an order.

Programs that were compiled are kept in a folder for the session, which all processes of the tests
share: many of them compile the same. ``JAX_COMPILATION_CACHE_DIR`` names another one.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # processes that this one starts have it
    _folder = tempfile.mkdtemp(prefix="jaxrl_cb-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

FIRST = [
    *("test_kill.py", "test_every_env.py", "test_nonfinite.py", "test_checkpoints.py"),
    *("test_kill_points.py", "test_cli.py", "test_wrappers.py", "test_benchmarks.py"),
    *("test_determinism.py", "test_memory.py", "test_check.py", "test_fuzz_callbacks.py"),
    *("test_algorithms.py", "test_env_params.py", "test_sweep.py", "test_fuzz.py"),
    *("test_prioritized.py", "test_programs.py", "test_online.py"),
]
"""Files that take longest: they begin first, so that no process ends with one of them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts those first (pytest-xdist keeps this order with ``--no-loadscope-reorder``)."""
    rank = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


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
