"""Where figures go: anything with ``write(step_type, step, data)``, as in Tianshou."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Logger(Protocol):
    """Receives figures from the trainer and from callbacks."""

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Takes one row.

        Args:
            step_type: what `step` counts, for example "train/env_step".
            step: environment steps of one seed.
            data: names to Python numbers, or to lists of them with one per seed.
        """
        ...


class NullLogger:
    """Keeps nothing."""

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Ignores the row."""


class MemoryLogger:
    """Keeps every row in `rows`, as tuples (step_type, step, data)."""

    def __init__(self):
        self.rows: list[tuple[str, int, dict[str, Any]]] = []

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Appends the row."""
        self.rows.append((step_type, step, dict(data)))


class LoggerList:
    """Passes every row on to several loggers, in order."""

    def __init__(self, loggers: Sequence[Logger]):
        self.loggers = list(loggers)

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Writes the row to each."""
        for logger in self.loggers:
            logger.write(step_type, step, data)
