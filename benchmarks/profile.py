"""Where the time of a training step goes: operations of the compiled loop, and seconds of each.

The chunk is compiled as the trainer compiles it. Its text tells what one vector step executes
(fusions, library calls, copies, branches, inner loops times their trips), and whether it copies
anything as large as the replay's observations. Then some chunks are timed, and one more is recorded
by JAX's profiler, which names what ran: on a GPU each kernel, on CPU each operation (recording
makes short operations look longer, and one that waits is counted while it waits).

    python benchmarks/profile.py CartPole-v1 --num-envs 10 --json profile.json --png profile.png

Settings are those of `throughput.py`.
"""

import argparse
import collections
import gzip
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from throughput import NETWORKS, learner_of

from jaxrl_cb.trainer import TrainerParams
from jaxrl_cb.trainer.programs import ProgramPlan, compile_programs
from jaxrl_cb.versions import versions

FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
"""Operations that nothing is executed for."""
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "u64": 8}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OPERATION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def computations(text: str) -> tuple[str, dict[str, list[tuple[str, str, str, str]]]]:
    """The entry's name, and each computation's operations: name, type, opcode, the rest."""
    entry, found, current = "", {}, None
    for row in text.splitlines():
        if head := _COMPUTATION.match(row):
            current = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif (operation := _OPERATION.match(row)) and current is not None:
            current.append(operation.groups())
    return entry, found


def executed(text: str, trips: int) -> tuple[collections.Counter, list[int]]:
    """What one step of the chunk's loop executes.

    Args:
        text: of the compiled program.
        trips: vector steps of the chunk, by which its loop is known.

    Returns:
        How often each opcode, of a branch the longest side, and bytes of each copy.
    """
    entry, found = computations(text)
    body = _loop(found, entry, trips)
    if body is None:
        raise ValueError(f"there is no loop of {trips} trips in the program")
    return _count(found, body)


def _loop(found: dict[str, Any], name: str, trips: int) -> str | None:
    for _, _, opcode, rest in found[name]:
        called = _CALLED.search(rest)
        if opcode == "while" and called:
            known = _TRIPS.search(rest)
            if known and int(known[1]) == trips:
                return called[1]
        if opcode in ("call", "while", "async-start") and called and called[1] in found:
            inner = _loop(found, called[1], trips)
            if inner:
                return inner
    return None


def _count(found: dict[str, Any], name: str) -> tuple[collections.Counter, list[int]]:
    counts, copies = collections.Counter(), list[int]()
    for _, kind, opcode, rest in found[name]:
        if opcode in FREE:
            continue
        counts[opcode] += 1
        if opcode in ("copy", "copy-start"):
            copies.append(max(size_of(kind), default=0))
        if opcode == "conditional":
            sides = _CALLED.findall(rest)
            for listed in _BRANCHES.findall(rest):
                sides += [side.strip().lstrip("%") for side in listed.split(",")]
            counted = [_count(found, side) for side in sides]
            longest = max(counted, key=lambda side: side[0].total())
            counts += longest[0]
            copies += [size for side in counted for size in side[1]]
        elif opcode in ("while", "call") and (called := _CALLED.search(rest)):
            known = _TRIPS.search(rest)
            inner, inner_copies = _count(found, called[1])
            for _ in range(int(known[1]) if known else 1):
                counts += inner
            copies += inner_copies
    return counts, copies


def size_of(kind: str) -> list[int]:
    """Bytes of each array in an operation's type."""
    return [
        BYTES.get(dtype, 4) * int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64))
        for dtype, shape in _SHAPE.findall(kind)
    ]


def recorded(run: Any) -> dict[str, tuple[int, float]]:
    """By name, how often an operation ran and its microseconds in all, of one call of `run`."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"
    }
    found: dict[str, list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("ph") != "X":
            continue
        thread = threads.get((event["pid"], event["tid"]), "")
        is_on_gpu = "gpu" in processes.get(event["pid"], "").lower() and "Stream" in thread
        is_on_cpu = "XLAEigen" in thread and not event["name"].startswith("ThunkExecutor")
        if is_on_gpu or is_on_cpu:
            found[event["name"]].append(event["dur"])
    return {name: (len(each), sum(each)) for name, each in found.items()}


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it, of one learner."""
    learner = learner_of(arguments, arguments.num_envs)
    width = TrainerParams(num_seeds=arguments.seeds).seeds_together
    length, device = arguments.vector_steps, jax.local_devices()[0]
    programs = compile_programs(learner, ProgramPlan(width, (length,), 1, device))
    chunk = programs.chunks[length]
    counts, copies = executed(chunk.compiled.as_text(), length)
    values = jax.tree.map(lambda x: np.full((width,), x), learner.initial_values(10**6))
    state = programs.init(*jax.device_put((np.arange(width, dtype=np.uint32), *values), device))
    ring = state.buffer.obs.nbytes

    def run() -> None:
        nonlocal state
        state, metrics = chunk(state)
        jax.block_until_ready((state, metrics))

    run()
    seconds = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    found = recorded(run)
    by_time = sorted(found.items(), key=lambda item: -item[1][1])
    return {
        "num_envs": arguments.num_envs,
        "num_seeds": width,
        "us_per_step": statistics.median(seconds) / length * 1e6,
        "operations": dict(counts.most_common()),
        "large_copies": sum(size >= ring for size in copies),
        "runs_per_step": sum(times for times, _ in found.values()) / length,
        "recorded_us_per_step": sum(total for _, total in found.values()) / length,
        "by_time": [
            {"name": name, "per_step": times / length, "us_per_step": total / length}
            for name, (times, total) in by_time[: arguments.top]
        ],
    }


def plot(row: dict[str, Any], path: Path, title: str) -> None:
    """Microseconds of each operation that took most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.25 * len(row["by_time"]) + 1), layout="constrained")
    axes = figure.subplots()
    names = [entry["name"][:50] for entry in row["by_time"]][::-1]
    axes.barh(names, [entry["us_per_step"] for entry in row["by_time"]][::-1])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="microseconds of a vector step, while recorded", title=title)
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", nargs="?", default="CartPole-v1")
    parser.add_argument("--num-envs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1, help="where they run in one program")
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--hidden", nargs="+", type=int, default=[120, 84])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--buffer-size", type=int, default=10_000)
    parser.add_argument("--vector-steps", type=int, default=1_000, help="of a chunk")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--top", type=int, default=25, help="operations to name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    row = profile(arguments)
    print(f"{row['us_per_step']:.1f} us per vector step; executed: {row['operations']}")
    print(f"copies as large as the replay's observations: {row['large_copies']}")
    print(f"recorded: {row['runs_per_step']:.1f} per step, {row['recorded_us_per_step']:.1f} us")
    for entry in row["by_time"]:
        print(f"{entry['us_per_step']:9.2f} us {entry['per_step']:7.2f} x {entry['name']}")
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | row, indent=2) + "\n")
    if arguments.png:
        plot(row, arguments.png, f"{arguments.env}, {jax.devices()[0].device_kind}")


if __name__ == "__main__":
    main()
