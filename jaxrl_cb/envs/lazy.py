"""Imports gymnax without the plotting libraries that stepping never uses."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

DRAWING = (
    "seaborn",
    "matplotlib",
    "matplotlib.pyplot",
    "matplotlib.colors",
    "matplotlib.animation",
)
"""What gymnax draws with, packages before their modules."""


def import_gymnax() -> ModuleType:
    """gymnax, for which these libraries are loaded only when something is drawn.

    They would take more than half of its import time.
    """
    with _stand_ins(DRAWING):
        return importlib.import_module("gymnax")


@contextlib.contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    """While it lasts, imports of these modules get stand-ins, which load them at the first use.

    (``importlib.util.LazyLoader`` loads at the second import already, before Python 3.12.)
    """
    in_place: dict[str, ModuleType] = {}

    def remove() -> None:
        for name, module in in_place.items():
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules and vars(sys.modules[parent]).get(child) is module:
                delattr(sys.modules[parent], child)
        in_place.clear()

    def stand_in(name: str) -> ModuleType:
        def load(attribute: str) -> Any:
            if attribute.startswith("__"):  # asked by the import system of packages
                raise AttributeError(attribute)
            remove()
            return getattr(importlib.import_module(name), attribute)

        module = ModuleType(name)
        vars(module)["__getattr__"] = load
        return module

    for name in names:
        parent, _, child = name.rpartition(".")
        # To look for a submodule would import its package.
        is_there = parent in sys.modules if parent else importlib.util.find_spec(name)
        if name in sys.modules or not is_there:
            continue
        in_place[name] = sys.modules[name] = stand_in(name)
        if parent:
            setattr(sys.modules[parent], child, in_place[name])
    try:
        yield
    finally:
        remove()
