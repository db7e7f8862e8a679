"""How much memory is free: of an accelerator as its runtime says, on CPU as Linux says.

Files are read as they are found: what is missing or makes no sense is not known, never an error.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jax


def available_bytes(devices: Sequence[Any]) -> int | None:
    """Bytes free on the fullest of some devices of one kind, now; None where it is not known."""
    if devices[0].platform == "cpu":  # all CPU devices share the main memory
        return host_bytes()
    return _least(device_bytes(device) for device in devices)


def device_bytes(device: Any) -> int | None:
    """Bytes that an accelerator's runtime may still hand out."""
    try:
        stats = device.memory_stats() or {}
    except jax.errors.JaxRuntimeError:  # of a backend that keeps no count
        return None
    limit = stats.get("bytes_limit")
    return max(limit - stats.get("bytes_in_use", 0), 0) if limit else None


def host_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of main memory that this process may still take.

    That is what Linux counts as available, or less where a control group (a container, a batch
    system) sets a limit to the process. Swap is not counted.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return _least([_meminfo(root), *_groups(root)])


def _least(amounts: Any) -> int | None:
    return min((amount for amount in amounts if amount is not None), default=None)


def _meminfo(root: Path) -> int | None:
    kibibytes = _field(_text(root / "proc/meminfo"), r"MemAvailable:\s+(\d+) kB")
    return None if kibibytes is None else 1024 * kibibytes


def _groups(root: Path) -> Iterator[int | None]:
    """What is left of the limit of each control group around this process, of either version."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for group in _with_parents(mount, path):
                yield _left(group, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            for group in _with_parents(mount / "memory", path):
                yield _left(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _with_parents(mount: Path, path: str) -> list[Path]:
    """A group's folder and all above it; in a container only the last of these may exist."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "//", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _left(group: Path, limit_file: str, used_file: str, prefix: str) -> int | None:
    limit, used = (_field(_text(group / name), r"(\d+)$") for name in (limit_file, used_file))
    if limit is None or used is None:  # "max", or no such group
        return None
    # Files that were read count as used, but make way.
    stat = _text(group / "memory.stat")
    cached = [_field(stat, rf"{prefix}{kind}_file (\d+)$") or 0 for kind in ("active", "inactive")]
    return max(limit - max(used - sum(cached), 0), 0)


def _field(text: str, pattern: str) -> int | None:
    """The number in the first line that fits."""
    found = re.search(f"^{pattern}", text, re.MULTILINE | re.ASCII)
    return int(found.group(1)) if found and len(found.group(1)) < 20 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""
