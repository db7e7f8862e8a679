"""Versions and machine, as far as they bear on a run's numbers."""

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util

PACKAGES = ("jaxrl-cb", "jax", "jaxlib", "flax", "optax", "gymnax", "gymnasium", "numpy")


def versions() -> dict[str, Any]:
    """Those of this process."""
    device = jax.devices()[0]
    config: Any = jax.config  # its attributes are not declared
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": {"platform": device.platform, "kind": device.device_kind},
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "random_numbers": str(config.jax_default_prng_impl),
    }


def cpu_model() -> str:
    """The processor, as exactly as the system tells it: name, family, model, widest vectors."""
    with contextlib.suppress(OSError):
        facts: dict[str, str] = {}
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
        if "model name" in facts:
            wide = [flag for flag in ("avx512f", "avx2") if flag in facts.get("flags", "").split()]
            numbers = (facts.get("cpu family", "?"), facts.get("model", "?"), *wide[:1])
            return f"{facts['model name']} ({', '.join(numbers)})"
    return platform.processor()


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two `versions`."""
    flat = [traverse_util.flatten_dict(dict(each), sep=".") for each in (then, now)]
    names = sorted(flat[0].keys() | flat[1].keys())
    return [
        f"{name} {flat[0].get(name)!r} -> {flat[1].get(name)!r}"
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]
