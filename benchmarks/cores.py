"""Whether a run has the same bits on one processor core as on all, and vectorised with others.

    python benchmarks/cores.py --json benchmarks/results/cores.json

Each run is a process of its own, bound to its cores by the operating system (Linux); two epochs of
CartPole-v1 from the defaults, one gradient step for each vector step. Vectorised are the defaults,
with several numbers of seeds, of which the first one's bits are compared.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SIZES = {  # hidden sizes, environments, batch
    "64 hidden units, 16 environments, batch 64": ((64,), 16, 64),
    "256 and 256, 16, 128 (the defaults)": ((256, 256), 16, 128),
    "256 and 256, 256, 512": ((256, 256), 256, 512),
    "512 and 512, 1024, 1024": ((512, 512), 1024, 1024),
}
WIDTHS = (2, 3, 4, 5, 8)


def child(name: str, num_seeds: int) -> str:
    """SHA-256 of the last parameters of the first seed."""
    import jax
    import numpy as np

    import jaxrl_cb

    hidden_sizes, num_envs, batch_size = SIZES[name]
    result = jaxrl_cb.train(
        "CartPole-v1",
        num_envs=num_envs,
        batch_size=batch_size,
        hidden_sizes=hidden_sizes,
        samples_per_insert=batch_size / num_envs,
        epoch_num_steps=200 * num_envs,
        max_epochs=2,
        num_seeds=num_seeds,
        vectorize_seeds=num_seeds > 1,
        verbose=False,
    )
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(result.policy.params):
        found.update(np.asarray(leaf)[0].tobytes())
    return found.hexdigest()


def on(cores: set[int], name: str, num_seeds: int = 1) -> str:
    """What a process finds that has only these cores."""
    return subprocess.run(
        [sys.executable, __file__, "--child", name, str(num_seeds)],
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, num_seeds = arguments.child
        print(child(name, int(num_seeds)))
        return
    every = os.sched_getaffinity(0)
    rows = {}
    for name in SIZES:
        one, twice, again = (on(cores, name) for cores in ({min(every)}, every, every))
        rows[name] = {"again": twice == again, "one core": one == twice}
        print(f"{name}: again {twice == again}, on one core {one == twice}", flush=True)
    defaults = list(SIZES)[1]
    digests = {width: on(every, defaults, width) for width in WIDTHS}
    alike: dict[str, list[int]] = {}
    for width, digest in digests.items():
        alike.setdefault(digest, []).append(width)
    print(f"vectorised, the first seed is the same with {list(alike.values())} seeds")
    if arguments.json:
        from jaxrl_cb.versions import versions

        result = {"command": sys.argv, "versions": versions(), "cores": len(every), "equal": rows}
        result["vectorised_alike"] = list(alike.values())
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
