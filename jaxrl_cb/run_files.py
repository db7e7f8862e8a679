"""Files of a run folder: held by one process, never half written, rows that are counted."""

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrl_cb.errors import CheckpointCorruptError, RunLockedError, shown

try:
    import fcntl
except ImportError:  # Windows: there two processes in one folder are not noticed
    fcntl = None

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # what is opened with it must not be a symbolic link


class Rows:
    """Lines of a file, counted and hashed, so that a checkpoint can say how far they went."""

    def __init__(self, path: Path):
        self._path = path
        self._size, self._hash = 0, hashlib.sha256()

    def facts(self) -> dict[str, Any]:
        return {"bytes": self._size, "sha256": self._hash.hexdigest()}

    def go_back(self, facts: Mapping[str, Any]) -> None:
        """Takes the rows up to a checkpoint as those that are there."""
        size, digest = int(facts["bytes"]), hashlib.sha256()
        if self._path.is_file() and self._path.stat().st_size >= size:
            with self._path.open("rb") as file:
                while size > 0 and (part := file.read(min(size, 2**20))):
                    digest.update(part)
                    size -= len(part)
        if size or digest.hexdigest() != facts["sha256"]:
            raise CheckpointCorruptError(
                f"{self._path.name} does not begin with the rows that the run had written by then"
            )
        self._size, self._hash = int(facts["bytes"]), digest

    def start(self, *, keep: bool) -> None:
        """Cuts off what came later than the rows that count, or everything."""
        if not keep:
            self._size, self._hash = 0, hashlib.sha256()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | NO_LINK, 0o666)
        try:
            os.ftruncate(descriptor, self._size)
        finally:
            os.close(descriptor)

    def append(self, row: str) -> None:
        data = row.encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | NO_LINK)  # gone is an error
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError("the disk is full")
        finally:
            os.close(descriptor)
        self._size += len(data)
        self._hash.update(data)


def locked(path: Path) -> int:
    """A file held by this process alone, with its number and machine in it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        raise RunLockedError(
            f"run_dir={shown(str(path.parent))} is in use by {holder or 'another process'}; wait "
            "for it, or choose another run_dir"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
    return descriptor


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside the old one and puts it in its place, so that there is always one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # it may be a link
    write(temporary)
    os.replace(temporary, path)
