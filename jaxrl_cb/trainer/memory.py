"""What memory a run will need, told before it takes any, and what to change if that is too much.

There are two estimates. Before anything is compiled it is the bytes of the state of every seed,
which the replay makes up nearly all of. From the compiled programs it is that and what they use
besides. Both are of the device that holds most; on CPU all seeds share the main memory.
"""

import bisect
import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxrl_cb.errors import ConfigError, MemoryEstimateError
from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer.available_memory import available_bytes
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.programs import Programs, state_shapes
from jaxrl_cb.types import PyTree

# What a process on CPU takes besides, whatever it runs: measured, 3.0 to 3.9 MiB. Pages of its
# libraries' code are not counted (5 to 10 MiB more), as the kernel drops them when memory is short.
HOST_BYTES = 7 * 2**19
_IN_WAVES = "jaxrl_cb.sweep(env, {{}}, num_seeds=..., seeds_at_once={})"
# The dtype's bits and the shape of what a matrix product or a fusion of one gives, on CPU.
_PRODUCT = re.compile(r"%(?:ynn_fusion|dot)\S* = [a-z]+(\d+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a run needs, and that there is.

    Attributes:
        total: bytes that the run needs.
        by_leaf: bytes of each leaf of the state over all seeds, by its path ("buffer.obs").
        available: bytes that were free when this was made; None where it is not known.
    """

    total: int
    by_leaf: dict[str, int]
    available: int | None

    @property
    def fits(self) -> bool:
        """Whether as much is there as is needed, or it is not known."""
        return self.available is None or self.total <= self.available

    def __str__(self) -> str:
        parts = {
            **self.by_leaf,
            "copies and working memory": self.total - sum(self.by_leaf.values()),
        }
        largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
        words = ", ".join(f"{name} {in_words(size)}" for name, size in largest)
        return f"{in_words(self.total)} of memory ({words}, ...)"


def estimate(
    learner: Learner,
    params: TrainerParams,
    programs: Programs | None = None,
    num_copies: int = 0,
) -> MemoryEstimate:
    """What a run needs; without `programs` that is the state of its seeds.

    Args:
        learner: what is trained.
        params: of the trainer.
        programs: compiled ones of one group of seeds.
        num_copies: how often the host holds all states at once beside; 1 where they are saved.
    """
    run = _Run(learner, params, num_copies)
    per_seed, num_seeds = _leaf_bytes(state_shapes(learner)), run.seeds_held()
    by_leaf = {name: num_seeds * size for name, size in per_seed.items()}
    return MemoryEstimate(
        total=run.needs(_besides(run, programs)),
        by_leaf=by_leaf,
        available=available_bytes(run.devices()),
    )


def check(
    learner: Learner,
    params: TrainerParams,
    programs: Programs | None = None,
    num_copies: int = 0,
) -> MemoryEstimate:
    """Gives the estimate if the run fits.

    Raises:
        MemoryEstimateError: it does not; the message has a setting with which it would.
    """
    needed = estimate(learner, params, programs, num_copies)
    if needed.available is not None and not needed.fits:
        run = _Run(learner, params, num_copies)
        raise MemoryEstimateError(
            f"the run needs {needed}, {in_words(needed.available)} are available: "
            + _advice(run, needed.available, _besides(run, programs))
        )
    return needed


def explain(
    error: BaseException, learner: Learner, params: TrainerParams, needed: MemoryEstimate
) -> None:
    """Adds to a backend's out-of-memory error what the run was expected to need."""
    # The status is said to be RESOURCE_EXHAUSTED, or on CPU also INTERNAL.
    if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
        return
    # It was expected to fit, so nobody knows how much would: three quarters are a step.
    limit = needed.total * 3 // 4
    there = "" if needed.available is None else f", {in_words(needed.available)} were available"
    advice = _advice(_Run(learner, params), limit)
    error.add_note(f"the run was expected to need {needed}{there}: {advice}")


def in_words(num_bytes: int) -> str:
    """Bytes as GiB, or as MiB or KiB where they are few."""
    power, name = next(
        (p, n) for p, n in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if num_bytes * 10 >> p or p == 10
    )
    number = num_bytes / 2**power
    return f"{number:,.1f} {name}" if number >= 1 else f"{number:.2f} {name}"


class _Run(NamedTuple):
    """What is trained and how: all that the bytes of a run depend on."""

    learner: Learner
    params: TrainerParams
    num_copies: int = 0  # of all states that the host holds at once

    def devices(self) -> list[Any]:
        """Those that have seeds."""
        return jax.local_devices()[: self.params.num_seeds // self.params.seeds_together]

    def needs(self, besides: int = 0) -> int:
        """Bytes on the device that needs most, or in main memory.

        Args:
            besides: bytes besides its state of each seed that a program runs.
        """
        on_host = self.devices()[0].platform == "cpu"  # elsewhere copies are not on the device
        copies = self.num_copies * self.params.num_seeds if on_host else 0
        held = self.seeds_held() * (2 if self.params.debug else 1)  # states before the chunk
        states = (held + copies) * self.state_bytes()
        process = HOST_BYTES if on_host and besides else 0
        return states + self.seeds_at_once() * besides + process

    def state_bytes(self) -> int:
        """Of one seed."""
        return sum(_leaf_bytes(state_shapes(self.learner)).values())

    def seeds_held(self) -> int:
        """On the device that holds most of them, or in main memory, which CPU devices share."""
        width, devices = self.params.seeds_together, self.devices()
        if devices[0].platform == "cpu":
            return self.params.num_seeds
        return width * -(-(self.params.num_seeds // width) // len(devices))

    def seeds_at_once(self) -> int:
        """Seeds whose programs run at the same time there: a device runs one program at a time."""
        devices = self.devices()
        return self.params.seeds_together * (len(devices) if devices[0].platform == "cpu" else 1)

    def value(self, name: str) -> int:
        return self.params.num_seeds if name == "num_seeds" else self.learner.sizes()[name].now

    def changed(self, name: str, value: int) -> "_Run":
        """The run with another value of a setting.

        Raises:
            ConfigError: it does not fit the others.
        """
        if name == "num_seeds":
            return self._replace(params=dataclasses.replace(self.params, num_seeds=value))
        learner = self.learner.resized(name, value)
        self.params.check_with(learner)
        return self._replace(learner=learner)

    def lower_values(self, name: str) -> Sequence[int]:
        """All lower values that a setting may have, the others being as they are, ascending."""
        if name == "num_seeds":
            return range(1, self.params.num_seeds)
        sizes = self.learner.sizes()
        values = sizes[name].lower if name in sizes else ()
        return values if isinstance(values, range) else [v for v in values if self._may(name, v)]

    def _may(self, name: str, value: int) -> bool:
        try:
            return bool(self.changed(name, value))
        except ConfigError:  # a rate that cannot be counted exactly
            return False


def _advice(run: _Run, limit: int, besides: int = 0) -> str:
    """Which setting to lower, and to what at most, so that a run needs no more than `limit` bytes.

    Args:
        run: as it is.
        limit: bytes.
        besides: see `_Run.needs`.
    """
    fitting = _fitting(run, "num_seeds", limit, besides)
    waves = "" if fitting is None else f", or train them in waves, {_IN_WAVES.format(fitting)}"
    for name in ("buffer_size", "num_seeds", "num_envs"):
        step = _step(run, name, limit, besides)
        if step:
            return f"lower {step}{waves}"
    step = _step(run.changed("num_seeds", 1), "buffer_size", limit, besides)
    if step:
        return f"lower num_seeds from {run.params.num_seeds:,} to 1 and {step}"
    names = ", ".join(run.learner.sizes())
    return f"to lower {names} and num_seeds is not enough; {run.learner.LAST_RESORT}"


def _step(run: _Run, name: str, limit: int, besides: int) -> str | None:
    """The highest lower value of a setting with which the run fits, in words."""
    fitting = _fitting(run, name, limit, besides)
    if fitting is None:
        return None
    or_less = "" if name == "num_envs" else " or less"  # not every lower one divides the rest
    return f"{name} from {run.value(name):,} to {fitting:,}{or_less}"


def _fitting(run: _Run, name: str, limit: int, besides: int) -> int | None:
    """The highest lower value of a setting with which the run fits."""

    def needs(value: int) -> int:
        return run.changed(name, value).needs(besides)

    values = run.lower_values(name)
    number = bisect.bisect_right(values, limit, key=needs)
    return values[number - 1] if number else None


def _besides(run: _Run, programs: Programs | None) -> int:
    """Bytes of one seed besides its state while any of its programs runs."""
    if programs is None:
        return 0
    width = run.params.seeds_together
    held = width * run.state_bytes()
    init, *chunks = (
        _sizes(program)
        for program in (programs.init, *(chunk.compiled for chunk in programs.chunks.values()))
    )
    # A test reads part of the state and gives little; the others give states.
    most = [sum(init), *(sum(chunk) for chunk in chunks), held + sum(_sizes(programs.evaluate)[1:])]
    return max(-(-(max(most) - held) // width), 0)


@functools.lru_cache(maxsize=96)
def _sizes(program: Any) -> tuple[int, int, int]:
    """Bytes of a compiled program's arguments, of its results beyond these, and in between.

    Kept, as each takes some 15 ms.
    """
    sizes = program.memory_analysis()
    if sizes is None:  # of a backend that does not say
        return 0, 0, 0
    new = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    between = sizes.temp_size_in_bytes + _uncounted(program.as_text())
    return sizes.argument_size_in_bytes, new, between


def _uncounted(program: str) -> int:
    """Bytes that a compiled program takes and its compiler does not count.

    On CPU the library that multiplies matrices has memory of its own, two to four times the largest
    array that one of its calls gives, by the processor (measured on two, with batches of 1,024 to
    32,768 and 256 to 2,048 hidden units; a program of another backend has no such calls).

    Args:
        program: its text.
    """
    products = (
        int(bits) // 8 * math.prod(int(size) for size in shape.split(",") if size)
        for bits, shape in _PRODUCT.findall(program)
    )
    return 3 * max(products, default=0)


def _leaf_bytes(tree: PyTree) -> dict[str, int]:
    """Bytes of each leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return {name(path): leaf.size * leaf.dtype.itemsize for path, leaf in leaves}
