"""The layers: imports go down only, and what lies below the trainer is pure."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxrl_cb"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = {
    **dict.fromkeys(["errors", "types", "checks"], 0),
    **dict.fromkeys(["ops", "networks"], 1),
    **dict.fromkeys(["buffers", "envs", "algorithms"], 2),
    "learners": 3,
    "trainer": 4,
}
TOP = 5  # the package itself and everything else in it
SIBLINGS = {"buffers", "envs", "algorithms"}
OPTIONAL = {"gymnax", "gymnasium", "matplotlib", "orbax", "rich", "tyro"}


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["jaxrl_cb", *(parts[:-1] if parts[-1] == "__init__" else parts)])


MODULES = {module_of(path): path for path in FILES}


def room_of(module):
    """The first name below the package: "ops" of jaxrl_cb.ops.losses, "" of the package itself."""
    return [*module.split("."), ""][1]


def layer_of(module):
    return LAYERS.get(room_of(module), TOP)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(module, path):
    """(line, name) of all modules that a file imports, in functions and by text as well."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(start if node.level else []), *([node.module] if node.module else [])]
            )
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in MODULES else base
        elif isinstance(node, ast.Constant) and node.value in MODULES and "." in node.value:
            yield node.lineno, node.value  # importlib.import_module("jaxrl_cb...")


def breaches(rule):
    """Every place at which `rule(node) -> str | None` objects, below the trainer."""
    found = []
    for module, path in MODULES.items():
        if layer_of(module) >= LAYERS["trainer"]:
            continue
        for node in ast.walk(tree_of(path)):
            objection = rule(node)
            if objection:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {objection}")
    return found


def test_the_files_are_found():
    assert {"jaxrl_cb", "jaxrl_cb.types", "jaxrl_cb.learners.replay"} <= set(MODULES)
    assert {room for room in LAYERS if any(room_of(m) == room for m in MODULES)} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    found = []
    for line, name in imported(module, MODULES[module]):
        if name.split(".")[0] != "jaxrl_cb":
            continue
        mine, other = room_of(module), room_of(name)
        if layer_of(name) > layer_of(module) or (mine != other and {mine, other} <= SIBLINGS):
            found.append(f"line {line}: {module} imports {name}")
    assert found == []


def test_nothing_below_the_trainer_compiles_or_places():
    def rule(node):
        name = getattr(node, "attr", None) or getattr(node, "id", None)
        if isinstance(node, ast.ImportFrom):
            name = next((a.name for a in node.names if a.name in ("jit", "device_put")), None)
        return name if name in ("jit", "pjit", "device_put") else None

    assert breaches(rule) == []


def test_nothing_below_the_trainer_logs_looks_at_the_clock_or_opens_files():
    impure = {"time", "datetime", "logging", "os", "pathlib", "io", "random", "subprocess"}

    def rule(node):
        if isinstance(node, ast.Import):
            return next((a.name for a in node.names if a.name.split(".")[0] in impure), None)
        if isinstance(node, ast.ImportFrom):
            return node.module if (node.module or "").split(".")[0] in impure else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            return name if name in ("open", "print", "write_text", "read_text") else None
        return None

    assert breaches(rule) == []


def targets_of(node):
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
        targets = [node.target]
    elif isinstance(node, ast.With):
        targets = [item.optional_vars for item in node.items if item.optional_vars]
    else:
        return []
    nested = [n for target in targets for n in ast.walk(target)]
    return [
        n for n in nested if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store | ast.Del)
    ]


def test_nothing_below_the_trainer_assigns_attributes():
    def allowed(module):
        """Lines of ``ByIdentity.__init__``, which holds an object as part of a key."""
        lines = set()
        for node in ast.walk(tree_of(MODULES[module])):
            if isinstance(node, ast.ClassDef) and node.name == "ByIdentity":
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        lines |= set(range(method.lineno, method.end_lineno + 1))
        return lines

    found = []
    for module, path in MODULES.items():
        if layer_of(module) >= LAYERS["trainer"] or path.name == "lazy.py":
            continue  # lazy.py stands in for modules while gymnax is imported; none of it is traced
        for node in ast.walk(tree_of(path)):
            assigned = [target.attr for target in targets_of(node)]
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                assigned += [name] if name in ("setattr", "__setattr__", "delattr") else []
            if assigned and node.lineno not in allowed(module):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {assigned}")
    assert found == []


WATCH = """
import builtins, sys
asked, original = [], builtins.__import__
def watching(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if level == 0 and importer.split(".")[0] == "jaxrl_cb":
        asked.append(name.split(".")[0])
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = watching
import jaxrl_cb
import jaxrl_cb.trainer
print(*sorted(set(asked)))
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_importing_the_package_brings_no_optional_one_along():
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True)
    asked, loaded = (set(line.split()) for line in done.stdout.splitlines())
    assert {"jax", "numpy"} <= asked
    assert asked & OPTIONAL == set()
    assert loaded & (OPTIONAL - {"rich"}) == set()  # flax brings rich


def lengths():
    return [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES]


def test_files_stay_short():
    assert statistics.median(lengths()) <= 140
