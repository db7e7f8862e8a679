"""What a checkpoint says of itself, so that nothing is restored that was not written so.

The bytes of an array file can change without any reader noticing, and a reader casts what is of
another dtype. So every checkpoint has a manifest: SHA-256, shape and dtype of each array, and all
that is not an array, under a digest of its own.

How this digest is made, of "format" and "body", is the same for every format: so the manifest of a
later version is told as later, and not as damaged.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrl_cb.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointVersionError,
)

FORMAT = 1
"""Raised whenever older code could not read, or would misread, what is written."""


def sealed(arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of some arrays and of JSON content."""
    table = {
        name: {"sha256": digest(x), "shape": list(x.shape), "dtype": x.dtype.name}
        for name, x in arrays.items()
    }
    body = {"arrays": table, **content}
    return {"format": FORMAT, "sha256": _seal(FORMAT, body), "body": body}


def opened(manifest: Any) -> dict[str, Any]:
    """The body of a manifest.

    Raises:
        CheckpointCorruptError: it is not one, or not as it was written.
        CheckpointVersionError: it was written by a later version.
    """
    try:
        version, body = manifest["format"], manifest["body"]
        is_whole = manifest["sha256"] == _seal(version, body)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(f"its manifest is none: {error!r}") from error
    if not is_whole:
        raise CheckpointCorruptError("its manifest is not as it was written (SHA-256 differs)")
    if version != FORMAT:
        raise CheckpointVersionError(
            f"it has format {version}, this version of jaxrl_cb reads format {FORMAT}; use the "
            "version that wrote it, or a later one"
        )
    return body


def check_expected(table: Mapping[str, Any], expected: Mapping[str, tuple[Any, str]]) -> None:
    """Checks that a manifest has the arrays of this run's state, in shape and dtype.

    Args:
        table: the manifest's.
        expected: by name, shape and dtype of the state's and the best parameters' arrays.

    Raises:
        CheckpointMismatchError: naming the first that differ.
    """
    kept = {name: entry for name, entry in table.items() if name.startswith(("state.", "best."))}
    different = []
    for name in sorted(kept.keys() | expected.keys()):
        stored = (tuple(kept[name]["shape"]), kept[name]["dtype"]) if name in kept else None
        if stored != expected.get(name):
            different.append(f"{name} is {_words(stored)}, expected {_words(expected.get(name))}")
    if different:
        more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
        raise CheckpointMismatchError(f"it is of another run: {'; '.join(different[:3])}{more}")


def digest(array: np.ndarray) -> str:
    """SHA-256 of the array's bytes."""
    return hashlib.sha256(bytes_of(array).data).hexdigest()


def bytes_of(array: np.ndarray) -> np.ndarray:
    """The array's bytes, which are the array's own where it is contiguous.

    As uint8: a buffer can have no bfloat16, and none that has no elements can be cast.
    """
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _seal(version: Any, body: Any) -> str:
    text = json.dumps([version, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _words(stored: tuple[Any, str] | None) -> str:
    return "absent" if stored is None else f"{stored[1]}{list(stored[0])}"
