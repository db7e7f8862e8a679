"""Every error that the library raises on purpose.

All derive from `JaxrlError`; each also derives from the built-in error that a caller would
expect, so ``except ValueError`` keeps working.
"""

import difflib
from collections.abc import Iterable


class JaxrlError(Exception):
    """Base class of the library's own errors."""


class ConfigError(JaxrlError, ValueError):
    """A setting has a value that cannot work; the message names a way out."""


class ConfigTypeError(ConfigError, TypeError):
    """A setting has a value of the wrong type."""


class UnknownEnvError(ConfigError):
    """No environment of that name is known."""


class UnsupportedEnvError(ConfigError):
    """The environment exists but cannot be trained on here."""


class CallbackTypeError(JaxrlError, TypeError):
    """A callback is, or set or returned, something of the wrong type."""


class CallbackValueError(JaxrlError, ValueError):
    """A callback set a value outside its range."""


class MissingPackageError(JaxrlError, ImportError):
    """An optional package is not installed; the message has the line that installs it."""


class MemoryEstimateError(JaxrlError, MemoryError):
    """A run needs more memory than there is; raised before it takes any."""


class RunFolderError(JaxrlError, ValueError):
    """A run folder is missing, not empty, or not one of ours."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""
