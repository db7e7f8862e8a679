"""What the command line asks of JAX before it starts; an import, or a call in Python, never does.

A cache of compiled programs, so that the second run of the same settings starts sooner, and on CPU
a device for each core, so that several seeds use all of them. What the user has set is left alone.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import jax

CACHE = "jaxrl_cb"


def prepare(num_seeds: int) -> None:
    """Both, before JAX has started."""
    cache_programs()
    use_all_cores(num_seeds)


def cache_programs() -> None:
    """Keeps compiled programs in a private folder of this user."""
    config: Any = jax.config  # its attributes are not declared
    if not config.jax_compilation_cache_dir and (folder := private_folder()):
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def use_all_cores(num_seeds: int) -> None:
    """Gives each core a CPU device, of which every one runs a seed at a time.

    Args:
        num_seeds: of the run; more devices than seeds would have nothing to do.
    """
    config: Any = jax.config
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    is_given = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if config.jax_num_cpu_devices < 0 and not is_given:
        # Where JAX has started already its devices stay as they are.
        with contextlib.suppress(RuntimeError):
            config.update("jax_num_cpu_devices", max(min(num_seeds, cores or 1), 1))


def private_folder() -> Path | None:
    """A folder of this user's cache that nobody else may write to; None if there can be none.

    A cached program is run as it is, so it must be ours.
    """
    if not hasattr(os, "getuid"):  # Windows: permissions are not as here
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / CACHE
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError):  # no home, or a full disk: no cache then
        return None
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return folder if is_ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None
