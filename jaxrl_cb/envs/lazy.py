"""Imports gymnax without the plotting libraries that stepping never uses."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def import_gymnax() -> ModuleType:
    """gymnax, for which seaborn and pyplot are loaded only when something is drawn.

    They would take more than half of its import time.
    """
    with _put_off("seaborn"), _put_off("matplotlib.pyplot"):
        return importlib.import_module("gymnax")


@contextlib.contextmanager
def _put_off(name: str) -> Iterator[None]:
    """While it lasts, imports of a module get a stand-in, which loads it at the first use.

    (``importlib.util.LazyLoader`` loads at the second import already, before Python 3.12.)
    """
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__spec__ = spec

    def load(attribute: str) -> Any:
        return getattr(importlib.import_module(name), attribute)

    vars(stand_in)["__getattr__"] = load
    sys.modules[name] = stand_in
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, stand_in)
    try:
        yield
    finally:
        del sys.modules[name]
        if parent:
            delattr(sys.modules[parent], child)
