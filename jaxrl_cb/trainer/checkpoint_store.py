"""Checkpoints on disk: orbax writes and commits them, a manifest says what has to be in them.

Orbax's commit is a rename, so a process that is killed leaves a whole checkpoint or none. What
else may be in the folder (a step half deleted, truncated, changed, or none of ours) is found when
it is read: nothing in it is trusted.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_cb.errors import CheckpointCorruptError, CheckpointError, CheckpointWriteError
from jaxrl_cb.trainer.manifest import check_arrays, opened, sealed

MAX_JSON_BYTES = 16 * 2**20
MAX_FILES = 100_000
TRASH, REJECTED = "trash", "rejected"


class CheckpointStore:
    """Numbered checkpoints in a folder: the two newest and the best are kept.

    Attributes:
        path: the folder, made when the first checkpoint is written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        self._manager: Any = None

    def steps(self) -> list[int]:
        """Numbers of what looks like a checkpoint, newest first."""
        if not self.path.is_dir():
            return []
        names = [entry.name for entry in self.path.iterdir()]
        return sorted((int(n) for n in names if re.fullmatch(r"0|[1-9]\d{0,17}", n)), reverse=True)

    def read_manifest(self, step: int) -> dict[str, Any]:
        """The body of a checkpoint's manifest; no array is read.

        Raises:
            CheckpointCorruptError: something is missing, too large, a link, or not as written.
            CheckpointVersionError: it was written by a later version.
        """
        import orbax.checkpoint as ocp
        from etils import epath

        folder = self.path / str(step)
        _check_files(folder)
        if sum(file.stat().st_size for file in (folder / "manifest").glob("*")) > MAX_JSON_BYTES:
            raise CheckpointCorruptError("its manifest is larger than any that was written")
        with _corrupt("its manifest cannot be read"):
            data = ocp.JsonCheckpointHandler().restore(epath.Path(folder / "manifest"))
        return opened(data)

    def read_arrays(self, step: int, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """A checkpoint's arrays, which are bit for bit those of its manifest.

        Args:
            step: of the checkpoint.
            table: its manifest's "arrays".

        Raises:
            CheckpointCorruptError: they are not.
        """
        from jaxrl_cb.trainer.array_files import read

        with _corrupt("its arrays cannot be read"):
            arrays = read(self.path / str(step) / "state", table)
        check_arrays(table, arrays)
        return arrays

    def write(
        self, step: int, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any], score: float
    ) -> None:
        """Writes a checkpoint; older ones beyond those that are kept are deleted.

        Args:
            step: its number, which no other has.
            arrays: by name.
            content: JSON.
            score: the checkpoint with the highest is kept; -inf for none.

        Raises:
            CheckpointWriteError: it could not be written; the others are as they were.
        """
        needed = sum(array.nbytes for array in arrays.values())
        try:
            self.path.parent.stat()
            self.path.mkdir(mode=0o700, exist_ok=True)
            free = shutil.disk_usage(self.path).free
            if free < 1.1 * needed + 2**20:
                raise OSError("the disk is too full")
            manifest = sealed(arrays, content)
            size = len(json.dumps(manifest))
            if size > MAX_JSON_BYTES:
                raise OSError(
                    f"what is no array has {size:,} bytes as JSON, of {MAX_JSON_BYTES:,} at most; "
                    "callbacks may keep long lists as NumPy arrays of their own in a file"
                )
            self._write(step, arrays, manifest, score)
            self._purge()
        except Exception as error:
            self.close()  # after a failed save the manager no longer knows older checkpoints
            raise CheckpointWriteError(
                f"checkpoint {step} could not be written to {str(self.path)!r}: "
                f"{_first_line(error)} ({needed / 2**20:,.1f} MiB are needed, {self._free()} "
                "free); older checkpoints are as they were: make room, or the folder writable, and "
                "resume the run"
            ) from error

    def _free(self) -> str:
        try:
            return f"{shutil.disk_usage(self.path).free / 2**20:,.1f} MiB"
        except OSError:
            return "nobody knows how much"

    def _write(self, step: int, arrays: Any, manifest: Any, score: float) -> None:
        import orbax.checkpoint as ocp

        from jaxrl_cb.trainer.array_files import ArraySave

        self._manager = self._manager or self._open()
        is_saved = self._manager.save(
            step,
            args=ocp.args.Composite(state=ArraySave(arrays), manifest=ocp.args.JsonSave(manifest)),
            metrics={"score": score if np.isfinite(score) else -1e300},
        )
        if not is_saved:
            raise OSError(f"there is a {step} already")

    def _open(self) -> Any:
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        self._purge()

        def score(metrics: Any) -> float:
            return metrics["score"]

        kept = [policies.LatestN(2), policies.BestN(n=1, get_metric_fn=score)]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=score,
            enable_async_checkpointing=False,  # we are in a thread of our own already
            cleanup_tmp_directories=True,
            todelete_subdir=TRASH,  # by one rename, so that no half of a checkpoint is left
        )
        return ocp.CheckpointManager(self.path, options=options)

    def reject(self, step: int) -> Path:
        """Moves a checkpoint that is not to be used out of the way, and says where."""
        (self.path / REJECTED).mkdir(exist_ok=True)
        target = self.path / REJECTED / str(step)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{step}-{number}")
        (self.path / str(step)).rename(target)
        return target

    def close(self) -> None:
        """Lets go of what orbax holds; the store can be used again."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with contextlib.suppress(Exception):
                manager.close()

    def _purge(self) -> None:
        shutil.rmtree(self.path / TRASH, ignore_errors=True)


def _check_files(folder: Path) -> None:
    """Refuses what is no checkpoint, and links, which might lead out of the folder."""
    count = 0
    if folder.is_symlink() or not folder.is_dir():
        raise CheckpointCorruptError("it is not a folder")
    for parent, folders, files in os.walk(folder):
        count += len(files)
        links = [name for name in [*folders, *files] if (Path(parent) / name).is_symlink()]
        if links or count > MAX_FILES:
            raise CheckpointCorruptError(
                f"it has the link {links[0]!r}" if links else f"it has over {MAX_FILES} files"
            )
    for name in ("manifest", "state"):
        if not (folder / name).is_dir():
            raise CheckpointCorruptError(f"its {name} is missing")


@contextlib.contextmanager
def _corrupt(what: str) -> Any:
    """Makes one short error of the many that a reader may raise."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointCorruptError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{text[:160]}..." if len(text) > 160 else text or type(error).__name__
