"""What the source never does: run what a file says, unpickle, connect, or read secrets."""

import ast
from pathlib import Path

import pytest

from jaxrl_cb.errors import looks_secret

PACKAGE = Path(__file__).parents[1] / "jaxrl_cb"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in FILES}
FORBIDDEN = {
    *("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "yaml"),
    *("requests", "urllib", "http", "socket", "ssl", "ftplib", "smtplib", "subprocess"),
}


def calls(tree):
    """(name, node) of every call: ``load`` of ``np.load(...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", None) or getattr(node.func, "id", ""), node


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("file", TREES)
def test_nothing_runs_what_it_reads(file):
    tree = TREES[file]
    assert set(imported(tree)) & FORBIDDEN == set()
    for name, node in calls(tree):
        assert name not in {"eval", "exec", "compile", "__import__", "system", "popen"} or (
            name == "compile" and isinstance(node.func, ast.Attribute)  # re's and jax's
        ), node.lineno
        assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}, node.lineno


@pytest.mark.parametrize("file", TREES)
def test_modules_are_imported_by_names_in_the_source(file):
    """In the two files that do otherwise, the names stand in a table or at the call."""
    for name, node in calls(TREES[file]):
        if name == "import_module" and file not in ("__init__.py", "envs/lazy.py"):
            assert isinstance(node.args[0], ast.Constant), node.lineno


def test_the_environment_is_not_read():
    readers = {
        file
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    # pygame is told to open no window; XLA_FLAGS bear on a run's numbers and say what devices the
    # user wants; XDG_CACHE_HOME is where caches are
    assert readers == {"gymnasium_play.py", "machine.py", "versions.py"}


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "x-api-key", "myApiKey", "Authorization", "HF_TOKEN", "passwd"]
)
def test_names_of_secrets(name):
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["secretary", "keyboard", "tokenizer", "author", "eps_train"])
def test_names_of_no_secrets(name):
    assert not looks_secret(name)
