"""The command line ``jaxrl-cb``: parsing, exit codes and one-line errors.

Exit codes: 0 done (also when the budget ends unsolved), 1 NaN or infinity ended every seed (or any
with ``--on-nan raise``), 2 wrong input or a folder that cannot be used, 130 after Ctrl-C, 143 after
SIGTERM.
"""

import contextlib
import functools
import inspect
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

import tyro

from jaxrl_cb import __version__, commands, sweep_commands
from jaxrl_cb.errors import ConfigError, JaxrlError, NonFiniteError
from jaxrl_cb.signals import Terminated, leave_at_once

COMMANDS = (
    commands.train,
    sweep_commands.sweep,
    commands.resume,
    commands.evaluate,
    commands.plot,
    commands.report,
    commands.render,
    commands.envs,
    commands.algorithms,
)

JARGON = {
    r"^Error parsing (--\S+):": r"\1:",
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not a whole number",
    r"could not convert string to float: (.*)": r"\1 is not a number",
}
"""What parsers say, in a user's words."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _warn
    try:
        if arguments in (["--version"], ["-V"]):
            print(__version__)
        else:
            _parsed(arguments)()
    except (KeyboardInterrupt, Terminated) as error:
        words = error.message if isinstance(error, Terminated) else str(error)
        print(f"jaxrl-cb: interrupted{words and f'; {words}'}", file=sys.stderr, flush=True)
        code = 143 if isinstance(error, Terminated) else 130
        if getattr(error, "is_dropped", False):  # its computation still runs; nobody wants it
            leave_at_once(code)
        sys.exit(code)
    except (JaxrlError, OSError) as error:
        print(f"jaxrl-cb: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1 if isinstance(error, NonFiniteError) else 2)


def _warn(message: Warning | str, *_: object) -> None:
    print(f"jaxrl-cb: warning: {message}", file=sys.stderr)


def _parsed(arguments: list[str]) -> Callable[[], None]:
    """The command that the arguments name, ready to be called.

    Raises:
        ConfigError: they are wrong.
    """
    settings = (
        _settings(arguments)
        if arguments[:1] in (["train"], ["sweep"])
        else TypedDict("Settings", {})
    )
    named = {f.__name__: _deferred(f, settings) for f in COMMANDS}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                named,
                args=arguments,
                prog="jaxrl-cb",
                description="Callback-driven Q-learning on JAX.",
            )
    except SystemExit as stop:
        if stop.code:
            raise ConfigError(_one_line(errors.getvalue())) from None
        raise


def _deferred(function: Callable[..., None], settings: Any) -> Callable[..., Callable[[], None]]:
    """A function of the same signature, with these settings, that gives the call it would make."""

    def command(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    parameters = inspect.signature(function).parameters
    kinds = {name: parameter.annotation for name, parameter in parameters.items()}
    kinds |= {"settings": settings} if "settings" in kinds else {}
    command.__doc__, command.__annotations__ = function.__doc__, kinds
    vars(command)["__signature__"] = inspect.Signature(
        [parameter.replace(annotation=kinds[name]) for name, parameter in parameters.items()]
    )
    return command


def _settings(arguments: list[str]) -> Any:
    """The type of a dict that holds what is given of all settings; help shows preset values."""
    from jaxrl_cb.algorithms import VARIANTS
    from jaxrl_cb.config import FIELDS, GROUPS, resolve
    from jaxrl_cb.presets import PRESETS

    env = next((a for a in arguments if any(a == known for known, _ in PRESETS)), None)
    words = re.findall(r"(?:^| )--algorithm[= ](\S+)", " ".join(arguments))
    algorithm = words[-1] if words and words[-1] in VARIANTS else "dqn"
    defaults = resolve(env, algorithm, {}).flat()
    kinds: dict[str, Any] = {}
    for name, (group, field) in FIELDS.items():
        is_read = name in defaults
        hint = f"(default: {defaults[name]})" if is_read else f"(no setting of {algorithm})"
        text = _documented(GROUPS[group], name)
        argument = tyro.conf.arg(help=text, help_behavior_hint=hint)
        kinds[name] = Annotated[field.type, argument]
    for name in ("env_kwargs", "env_params"):  # a dict cannot be left out of a TypedDict
        del kinds[name]  # the commands have it themselves
    typed_dict: Any = TypedDict
    return Annotated[typed_dict("Settings", kinds, total=False), tyro.conf.arg(name="")]


def _documented(config: type, name: str) -> str:
    """A setting's line in its dataclass's docstring."""
    text = re.search(
        rf"^        {name}: (.*?)(?=^        \w+: |\Z)", config.__doc__ or "", re.M | re.S
    )
    return re.sub(r"\s+", " ", text.group(1)).strip() if text else ""


def _one_line(text: str) -> str:
    """The first paragraph of tyro's error box on one line, and the flag that it suggests.

    Where the terminal's encoding has no box, its title is a paragraph of its own.
    """
    from jaxrl_cb.config import OTHER_NAMES

    lines = [line.strip("│ ").strip() for line in text.splitlines() if line[:1] not in "╭╰"]
    first, *others = re.split(r"^[─-]{4,}$", "\n".join(lines), flags=re.M)
    if "╭" not in text and others:
        first, *others = others
    rest, words = "\n".join(others), " ".join(first.split()) or "wrong arguments"
    for jargon, plain in JARGON.items():
        words = re.sub(jargon, plain, words)
    near = re.search(r"Perhaps you meant:\s+(--[\w-]+)", rest)
    if near:
        return f"{words} (did you mean {near.group(1)}?)"
    known = re.search(r"Available subcommands: (.*?)(?:\n\n|\Z)", rest, re.S)
    if known:
        return f"{words}; there are {' '.join(known.group(1).split())}"
    flag = re.search(r"--([\w-]+)", words)
    other = OTHER_NAMES.get(flag.group(1).replace("-", "_")) if flag else None
    return words + (
        f" (did you mean --{other.replace('_', '-')}?)"
        if other
        else "; jaxrl-cb COMMAND --help says what there is"
    )
