"""Checkpoints on disk: orbax writes and commits them, a manifest says what has to be in them.

Orbax's commit is a rename, so a process that is killed leaves a whole checkpoint or none. What
else may be in the folder (a step half deleted, truncated, changed, or none of ours) is found when
it is read: nothing in it is trusted.
"""

import contextlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_cb.errors import CheckpointCorruptError, CheckpointError, CheckpointWriteError
from jaxrl_cb.trainer.manifest import opened, sealed

MAX_JSON_BYTES = 16 * 2**20
TRASH, REJECTED = "trash", "rejected"
STEP = re.compile("0|[1-9][0-9]{0,17}")
"""Names of checkpoints; orbax takes other digits, and more of them, for one too."""


class CheckpointStore:
    """Numbered checkpoints in a folder: the two newest and the best are kept.

    Attributes:
        path: the folder, made when the first checkpoint is written.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        self._manager: Any = None
        self._scores: dict[int, float] = {}  # of the checkpoints written or looked at

    def steps(self) -> list[int]:
        """Numbers of what looks like a checkpoint, newest first.

        Raises:
            CheckpointError: the folder may not be read.
        """
        with _reading(f"{str(self.path)!r} cannot be read"):
            names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        return sorted((int(name) for name in names if STEP.fullmatch(name)), reverse=True)

    def read_manifest(self, step: int) -> dict[str, Any]:
        """The body of a checkpoint's manifest; no array is read.

        Raises:
            CheckpointCorruptError: something is missing, too large, a link, or not as written.
            CheckpointVersionError: it was written by a later version.
            CheckpointError: it may not be read, or memory does not suffice.
        """
        import orbax.checkpoint as ocp
        from etils import epath

        folder = self.path / str(step)
        with _reading("its manifest cannot be read"):
            _check_files(folder)
            data = ocp.JsonCheckpointHandler().restore(epath.Path(folder / "manifest"))
        return opened(data)

    def read_arrays(self, step: int, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """A checkpoint's arrays, which are bit for bit those of its manifest.

        Args:
            step: of the checkpoint.
            table: its manifest's "arrays".

        Raises:
            CheckpointCorruptError: they are not.
            CheckpointError: they may not be read, or memory does not suffice.
        """
        from jaxrl_cb.trainer.array_files import read

        with _reading("its arrays cannot be read"):
            return read(self.path / str(step) / "state", table)

    def write(
        self, step: int, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any], score: float
    ) -> None:
        """Writes a checkpoint; older ones beyond those that are kept are deleted.

        Args:
            step: its number, which no other has.
            arrays: by name.
            content: JSON.
            score: the checkpoint with the highest is kept, of equal ones the latest; what is not
                finite is none. The manifest has it too, null for none.

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
            self._scores[step] = score if math.isfinite(score) else -math.inf
            manifest = sealed(arrays, {**content, "score": score if math.isfinite(score) else None})
            size = len(json.dumps(manifest))
            if size > MAX_JSON_BYTES:
                raise OSError(
                    f"what is no array has {size:,} bytes as JSON, of {MAX_JSON_BYTES:,} at most; "
                    "callbacks may keep long lists as NumPy arrays of their own in a file"
                )
            self._write(step, arrays, manifest)
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

    def _write(self, step: int, arrays: Any, manifest: Any) -> None:
        import orbax.checkpoint as ocp

        from jaxrl_cb.trainer.array_files import ArraySave

        self._manager = self._manager or self._open()
        is_saved = self._manager.save(
            step,
            args=ocp.args.Composite(state=ArraySave(arrays), manifest=ocp.args.JsonSave(manifest)),
        )
        if not is_saved:
            raise OSError(f"there is a {step} already")

    def _open(self) -> Any:
        import orbax.checkpoint as ocp

        self._purge()
        self._reject_foreign()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            lightweight_initialize=True,  # else it reads files of which nobody knows what they hold
            enable_async_checkpointing=False,  # we are in a thread of our own already
            cleanup_tmp_directories=True,
            todelete_subdir=TRASH,  # by one rename, so that no half of a checkpoint is left
        )
        return ocp.CheckpointManager(self.path, options=options)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's protocol `PreservationPolicy`, called after a checkpoint is written.

        Kept are the two newest, the best, and what cannot be read, as nobody knows what it is.
        """
        steps = [int(checkpoint.step) for checkpoint in checkpoints]
        scores = {step: self._score(step) for step in steps}
        known = [(score, step) for step, score in scores.items() if score is not None]
        kept = {*sorted(steps)[-2:], max(known)[1]}
        return [step in kept or scores[step] is None for step in steps]

    def _score(self, step: int) -> float | None:
        """A checkpoint's score, -inf for none; None if it cannot be read."""
        if step not in self._scores:
            try:
                score = self.read_manifest(step).get("score")
            except CheckpointError:
                return None
            self._scores[step] = score if isinstance(score, float) else -math.inf
        return self._scores[step]

    def _reject_foreign(self) -> None:
        """Moves away what orbax would take for a checkpoint and is none of ours."""
        for entry in self.path.iterdir():
            if entry.name.strip().isdigit() and not STEP.fullmatch(entry.name):
                self.reject(entry.name)

    def reject(self, step: int | str) -> Path:
        """Moves a checkpoint that is not to be used out of the way, and says where.

        Raises:
            CheckpointError: it cannot be moved.
        """
        try:
            return self._reject(step)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {step} in {str(self.path)!r} is not used, and cannot be moved to "
                f"{REJECTED!r}: {_first_line(error)}; make that a writable folder and resume again"
            ) from error

    def _reject(self, step: int | str) -> Path:
        (self.path / REJECTED).mkdir(exist_ok=True)
        target = self.path / REJECTED / str(step)
        number = 0
        while os.path.lexists(target):
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
        trash = self.path / TRASH
        if trash.is_symlink() or trash.is_file():
            trash.unlink()
        shutil.rmtree(trash, ignore_errors=True)


def _check_files(folder: Path) -> None:
    """Refuses what is no checkpoint, and links, which might lead out of the folder.

    No other files are opened than the manifest's, and those of the arrays, which `read` looks at.
    """
    for part in ("", "manifest", "state"):
        if not stat.S_ISDIR((folder / part).lstat().st_mode):
            raise CheckpointCorruptError(f"{f'its {part}' if part else 'it'} is not a folder")
    status = (folder / "manifest" / "metadata").lstat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointCorruptError("its manifest is not a file")
    if status.st_size > MAX_JSON_BYTES:
        raise CheckpointCorruptError("its manifest is larger than any that was written")


@contextlib.contextmanager
def _reading(what: str) -> Any:
    """Makes one short error of the many that a reader may raise.

    What may be read another time, when the user has seen to it, is not corrupt.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (PermissionError, MemoryError) as error:
        fix = "free memory" if isinstance(error, MemoryError) else "let this user read it"
        raise CheckpointError(
            f"{what}: {_first_line(error)}; nothing was changed: {fix} and resume again"
        ) from error
    except Exception as error:
        raise CheckpointCorruptError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{text[:160]}..." if len(text) > 160 else text or type(error).__name__
