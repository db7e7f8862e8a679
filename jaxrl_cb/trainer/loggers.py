"""Where figures go: anything with ``write(step_type, step, data)``, as in Tianshou."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxrl_cb.errors import ConfigTypeError, kind, shown


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


def check_logger(logger: Any) -> None:
    """Raises ConfigTypeError for what nothing can be written to."""
    if isinstance(logger, type) or not callable(getattr(logger, "write", None)):
        hint = f"{logger.__name__}()" if isinstance(logger, type) else "MemoryLogger()"
        raise ConfigTypeError(
            f"logger={shown(logger)} is {kind(logger)}; expected an object with "
            f"write(step_type, step, data), for example {hint}"
        )


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
        for logger in self.loggers:
            check_logger(logger)

    def write(self, step_type: str, step: int, data: Mapping[str, Any]) -> None:
        """Writes the row to each."""
        for logger in self.loggers:
            logger.write(step_type, step, data)
