"""Arrays in a checkpoint: one file of raw bytes each, which the manifest gives shape and dtype.

Orbax's own array files are compressed and made of chunks, for which it held 1.7 times the bytes of
the arrays while it wrote them, and took longer. A replay is too large for that.
"""

import dataclasses
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_cb.errors import CheckpointCorruptError
from jaxrl_cb.trainer.manifest import bytes_of, digest


class ArrayFiles(ocp.AsyncCheckpointHandler):
    """Writes arrays for orbax's `CheckpointManager`, which commits them."""

    async def async_save(self, directory: Any, args: "ArraySave") -> list[Any]:
        """The same; a handler that is not asynchronous leaves others unawaited if it fails."""
        self.save(directory, args)
        return []

    def save(self, directory: Any, args: "ArraySave") -> None:
        """Writes each array to a file of its own."""
        for file, array in zip(_files(directory, args.arrays), _sorted(args.arrays), strict=True):
            with file.open("wb") as out:
                out.write(bytes_of(array).data)

    def restore(self, directory: Any, args: Any = None) -> Any:
        """Not used: a manifest is needed, see `read`."""
        raise NotImplementedError


@ocp.args.register_with_handler(ArrayFiles, for_save=True, for_restore=True)
@dataclasses.dataclass
class ArraySave(ocp.args.CheckpointArgs):
    """What `ArrayFiles` saves: arrays by name."""

    arrays: Mapping[str, np.ndarray]


def read(directory: Path, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the arrays of a manifest's table, which are bit for bit those it was made of.

    No more is read, or allocated, than the files have.

    Raises:
        CheckpointCorruptError: naming the first array that is not, and its file.
    """
    arrays = {}
    for file, (name, entry) in zip(_files(directory, table), sorted(table.items()), strict=True):
        shape, dtype = _kind(name, entry)
        needed = math.prod(shape) * dtype.itemsize
        size = _size(file)
        if size != needed:
            has = f"{size} bytes, not {needed}, in" if size >= 0 else "no file"
            raise CheckpointCorruptError(f"its array {name} has {has} {file.name}")
        array = np.empty(shape, dtype)
        with file.open("rb") as source:
            source.readinto(bytes_of(array).data)
        if digest(array) != entry["sha256"]:
            raise CheckpointCorruptError(
                f"its array {name} is not as it was written (SHA-256 of {file.name} differs)"
            )
        arrays[name] = array
    return arrays


def _kind(name: str, entry: Mapping[str, Any]) -> tuple[list[int], np.dtype[Any]]:
    """The shape and dtype of a table's entry; a shape may be anything there."""
    shape, dtype = entry["shape"], jnp.dtype(entry["dtype"])  # NumPy alone knows no bfloat16
    is_shape = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not is_shape or dtype.name != entry["dtype"] or dtype.hasobject:
        raise CheckpointCorruptError(
            f"its array {name} cannot have the shape {shape} and the dtype {entry['dtype']!r}"
        )
    return shape, dtype


def _size(file: Path) -> int:
    """In bytes; -1 where there is no file, or a link, which might lead out of the folder."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _sorted(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays)]


def _files(directory: Any, arrays: Mapping[str, Any]) -> list[Path]:
    """Numbered, as names may hold anything."""
    return [Path(directory) / f"{number}.bin" for number in range(len(arrays))]
