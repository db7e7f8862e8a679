"""Arrays in a checkpoint: one file of raw bytes each, which the manifest gives shape and dtype.

Orbax's own array files are compressed and made of chunks, for which it held 1.7 times the bytes of
the arrays while it wrote them, and took longer. A replay is too large for that.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_cb.errors import CheckpointCorruptError
from jaxrl_cb.trainer.manifest import bytes_of


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
    """Reads the arrays of a manifest's table; no more is read, or allocated, than it says.

    Raises:
        CheckpointCorruptError: a file is missing or of another length.
    """
    arrays = {}
    for file, (name, entry) in zip(_files(directory, table), sorted(table.items()), strict=True):
        array = np.empty(entry["shape"], jnp.dtype(entry["dtype"]))  # bfloat16 is JAX's
        size = file.stat().st_size if file.is_file() else -1
        if size != array.nbytes:
            raise CheckpointCorruptError(
                f"its array {name} has {max(size, 0)} bytes, not {array.nbytes}, in {file.name}"
            )
        with file.open("rb") as source:
            source.readinto(bytes_of(array).data)
        arrays[name] = array
    return arrays


def _sorted(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays)]


def _files(directory: Any, arrays: Mapping[str, Any]) -> list[Path]:
    """Numbered, as names may hold anything."""
    return [Path(directory) / f"{number}.bin" for number in range(len(arrays))]
