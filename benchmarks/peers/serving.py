"""What a benchmark's process and its parent say to each other; only the standard library.

Each contender is a script in a Python environment of its own. It builds its program from the work
that it is given, says that it is ready, and then runs it once for each line that it reads, so that
the parent can let contenders take turns. All messages are JSON, one line each.
"""

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(build: Callable[[dict[str, Any]], Callable[[int], dict[str, Any]]], *names: str) -> None:
    """Builds a program and runs it when asked to.

    Args:
        build: from the work (the first argument of the script, JSON) to ``run(seed)``, which
            trains from the beginning and gives what it has done: "env_steps", "updates",
            "batch_size", and "hidden_sizes" or what else the work names. It must have compiled all
            that it needs, and `run` must end only when the results are there.
        names: packages whose versions are of interest.
    """
    work = json.loads(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr  # libraries may print what they like
    started = time.perf_counter()
    run = build(work)
    versions = {name: importlib.metadata.version(name) for name in names}
    versions["python"] = platform.python_version()
    ready = {"build_seconds": time.perf_counter() - started, "versions": versions}
    print(json.dumps(ready), file=out, flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        done = run(int(line))
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, **done}), file=out, flush=True)
