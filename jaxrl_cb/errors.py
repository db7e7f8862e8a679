"""Every error that the library raises on purpose.

All derive from `JaxrlError`; each also derives from the built-in error that a caller would
expect, so ``except ValueError`` keeps working.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any


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


class NonFiniteError(JaxrlError, FloatingPointError):
    """A loss, a reward, an observation or a parameter became NaN or infinite while training."""


class NonFiniteWarning(UserWarning):
    """The same, where training goes on: of the other seeds, or in spite of it."""


class SeedIndexError(JaxrlError, IndexError):
    """There is no seed of that index."""


class MissingPackageError(JaxrlError, ImportError):
    """An optional package is not installed; the message has the line that installs it."""


class MemoryEstimateError(JaxrlError, MemoryError):
    """A run needs more memory than there is; raised before it takes any."""


class RunFolderError(JaxrlError, ValueError):
    """A run folder is missing, not empty, or not one of ours."""


class RunLockedError(RunFolderError):
    """Another process writes to the run folder."""


class RunWriteError(RunFolderError, OSError):
    """Something could not be written to the run folder: full, read-only or gone."""


class CheckpointWarning(UserWarning):
    """A checkpoint that was not used, or is used on other terms than it was written."""


class LongEpochWarning(UserWarning):
    """Epochs take so long that a signal does not wait for their end."""


class CheckpointError(RunFolderError):
    """Base class of what can be wrong with a checkpoint."""


class CheckpointNotFoundError(CheckpointError):
    """There is no checkpoint where one has to be."""


class CheckpointCorruptError(CheckpointError):
    """A checkpoint is incomplete, or its bytes are not those that were written."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint is of another run: other settings, environment, callbacks, shapes or dtypes."""


class CheckpointVersionError(CheckpointError):
    """A checkpoint was written by a later version of this library."""


class CheckpointWriteError(CheckpointError, RunWriteError):
    """A checkpoint could not be written; older ones are as they were."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def shown(value: Any, limit: int = 80) -> str:
    """``repr`` of whatever a user passed: on one line, shortened in the middle."""
    if type(value).__module__.startswith("jax") and hasattr(value, "dtype"):
        return f"<jax array {value.dtype}{list(value.shape)}>"  # its repr would compile something
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's own __repr__, or an int of too many digits
        text = f"<{type(value).__name__}>"
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def kind(value: Any) -> str:
    """What a value is, in words: "a str", "an int", "a numpy.bool", "the class Trainer"."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    own = type(value)
    name = "numpy." * (own.__module__ == "numpy") + own.__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


SECRET = re.compile(
    r"(^|[\W_]|(?<=[a-z])(?=[A-Z]))"  # a word of its own: api_key, x-api-key, myApiKey
    r"((?i:api[_-]?key|access[_-]?key|private[_-]?key|token|secret|passw(or)?d|credentials?)"
    r"|(?i:authorization))([\W_]|$|(?<=[a-z])(?=[A-Z]))"
)


def looks_secret(name: str) -> bool:
    """Whether a value of this name should be in no file and in no message."""
    return bool(SECRET.search(name))
