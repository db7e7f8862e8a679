"""Paths and JSON from outside: nothing in them is trusted, and errors are one line."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_cb.errors import ConfigError, ConfigTypeError, RunFolderError, RunWriteError, kind, shown

MAX_NAME, MAX_PATH = 255, 4096  # bytes, of most file systems
MAX_JSON = 16_000_000  # characters


def checked_path(name: str, value: Any) -> Path:
    """The path that a setting is.

    Raises:
        ConfigTypeError: it is neither a text nor a path.
        ConfigError: it is empty, or no file can be called so.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ConfigTypeError(f"{name}={shown(value)} is {kind(value)}; expected a path")
    path = Path(value)
    size = max(len(os.fsencode(part)) for part in ("", *path.parts))
    if not os.fspath(value):
        raise ConfigError(f"{name}='' is empty; write '.' for the current folder")
    if "\0" in os.fspath(value):
        raise ConfigError(f"{name}={shown(str(value))} holds a NUL character; leave it out")
    if size > MAX_NAME or len(os.fsencode(path)) >= MAX_PATH:
        raise ConfigError(
            f"{name}={shown(str(value))} is too long; a name may have {MAX_NAME} bytes, a whole "
            f"path {MAX_PATH - 1}"
        )
    return path


def checked_output(value: Any) -> Path:
    """The path of a file that is to be written, whose folder is there.

    Raises:
        ConfigError: it cannot be written.
    """
    path = checked_path("output", value)
    if path.is_dir() or not path.parent.is_dir():
        reason = (
            "it is a folder; name a file in it"
            if path.is_dir()
            else "there is no such folder; make it first"
        )
        raise ConfigError(f"output={shown(str(path))} cannot be written: {reason}")
    return path


@contextlib.contextmanager
def writing(name: str, path: Path) -> Iterator[None]:
    """Turns what the operating system says about writing to a path into a RunWriteError."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        raise RunWriteError(
            f"{name}={shown(str(path))} cannot be written: {error.strerror or error}; choose "
            "another place, or see to its room and permissions"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong in reading a file into a RunFolderError that names it."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{shown(str(path))} cannot be read: {error.strerror or error}; see to its path and "
            "permissions"
        ) from error
    except Exception as error:  # files can be broken in any way, and readers raise anything
        reason = "it has no " if isinstance(error, KeyError) else ""
        raise RunFolderError(
            f"{shown(str(path))} is damaged or not of a run ({reason}{error}); take another run "
            "folder, or train it again"
        ) from error


def read_text(path: Path) -> str:
    """The text of a file of JSON, and of a longer one no more than `parse_json` refuses."""
    with path.open() as file:
        return file.read(MAX_JSON + 1)


def parse_json(text: str) -> Any:
    """JSON whose objects have each name once.

    Raises:
        ConfigError: it is none, with the line.
    """
    try:
        if len(text) > MAX_JSON:
            raise ConfigError(f"not JSON: it is longer than {MAX_JSON:,} characters")
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg} in line {error.lineno}") from error
    except RecursionError as error:
        raise ConfigError(
            "not JSON that can be read: its brackets are nested too deeply"
        ) from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not JSON that can be read: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the name {shown(name)} is there twice; delete one of them")
    return dict(pairs)
