"""What the command line asks of JAX: a private compile cache, and a CPU device for each core."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, jax
from jaxrl_cb.machine import prepare
{before}
prepare({num_seeds})
print(json.dumps([len(jax.devices()), jax.config.jax_compilation_cache_dir]))
"""

OWN = ("XLA_FLAGS", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
SYSTEM = {k: v for k, v in os.environ.items() if k not in OWN} | {"JAX_PLATFORMS": "cpu"}


def prepared(tmp_path, num_seeds=1, before="", **environment):
    named = SYSTEM | {"HOME": str(tmp_path), **environment}
    text = PROGRAM.format(num_seeds=num_seeds, before=before)
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, env=named, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_as_many_devices_as_seeds_and_cores(tmp_path):
    cores = len(os.sched_getaffinity(0))
    assert prepared(tmp_path, 1)[0] == 1
    assert prepared(tmp_path, 2)[0] == min(2, cores)
    assert prepared(tmp_path, 10_000)[0] == cores


def test_what_the_user_has_set_is_left_alone(tmp_path):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    assert prepared(tmp_path, 8, **flags)[0] == 3
    assert prepared(tmp_path, 8, "jax.config.update('jax_num_cpu_devices', 3)")[0] == 3
    own = str(tmp_path / "own")
    assert prepared(tmp_path, JAX_COMPILATION_CACHE_DIR=own)[1] == own


def test_after_jax_has_started_its_devices_stay(tmp_path):
    assert prepared(tmp_path, 8, "jax.devices()")[0] == 1


def test_the_cache_is_in_a_private_folder(tmp_path):
    folder = tmp_path / ".cache" / "jaxrl_cb"
    assert prepared(tmp_path)[1] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    other = tmp_path / "other"
    assert prepared(tmp_path, XDG_CACHE_HOME=str(other))[1] == str(other / "jaxrl_cb")


@pytest.mark.parametrize("what", ["writable by others", "a link", "a file"])
def test_a_folder_that_others_might_write_to_is_not_used(what, tmp_path):
    folder = tmp_path / ".cache" / "jaxrl_cb"
    folder.parent.mkdir()
    if what == "a link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif what == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert prepared(tmp_path)[1] is None


@pytest.mark.slow
def test_a_second_run_compiles_nothing_and_has_the_same_bits(tmp_path):
    named = SYSTEM | {"HOME": str(tmp_path)}
    sizes = {"max-epochs": 2, "epoch-num-steps": 320, "num-envs": 4, "buffer-size": 400}
    sizes |= {"start-timesteps": 40, "batch-size": 16, "num-seeds": 2}
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    rows = []
    for run in ("first", "second"):
        command = [sys.executable, "-m", "jaxrl_cb", "train", "CartPole-v1", *flags]
        command += ["--run-dir", str(tmp_path / run)]
        subprocess.run(command, env=named, capture_output=True, text=True, check=True)
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        rows.append([{k: v for k, v in json.loads(x).items() if "seconds" not in k} for x in lines])
        cache = sorted(p.name for p in (tmp_path / ".cache" / "jaxrl_cb").rglob("*-cache"))
        if run == "first":
            known = cache
    assert known
    assert cache == known
    assert rows[0] == rows[1]
