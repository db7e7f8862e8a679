"""A cold process to a solved and confirmed CartPole-v1, everything included, split into its parts.

Each repeat is a new Python process; no compilation cache is used. Compile bytecode first by running
it once (the first repeat is a warm-up and is not counted).

    python benchmarks/cold_start.py --repeats 5
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def child(seed: int) -> None:
    """Trains once and prints the parts of the time since the parent started this process."""
    started = float(os.environ["COLD_START"])
    import jaxrl_cb
    from jaxrl_cb.envs import make
    from jaxrl_cb.trainer import EpochStopCallbackConfirmedRewardThreshold, TrainerCallbacks

    make("CartPole-v1")  # imports gymnax

    imported = time.time()
    stop = EpochStopCallbackConfirmedRewardThreshold()
    callbacks = TrainerCallbacks(epoch_stop_callback=stop)
    result = jaxrl_cb.train("CartPole-v1", seed=seed, callbacks=callbacks, verbose=False)
    ended = time.time()
    parts = {
        "import": imported - started,
        **result.seconds,
        "total": ended - started,
        "env_step": result.env_step,
        "stopped": result.stopped,
    }
    # what the confirmation, the callbacks and the host took
    parts["other"] = ended - imported - sum(result.seconds.values())
    print(json.dumps(parts))


def main() -> None:
    """Repeats the cold run and prints each and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child)
        return
    rows = []
    for repeat in range(arguments.repeats + 1):
        seed = arguments.first_seed + max(repeat - 1, 0)
        environment = {**os.environ, "COLD_START": repr(time.time())}
        command = [sys.executable, __file__, "--child", str(seed)]
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        row = json.loads(output.stdout.splitlines()[-1])
        if repeat:
            rows.append(row)
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    names = [name for name, value in rows[0].items() if isinstance(value, float)]
    print("median", {name: round(statistics.median(r[name] for r in rows), 2) for name in names})


if __name__ == "__main__":
    main()
