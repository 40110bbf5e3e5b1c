"""Errors travel from workers to the supervisor, which has no torch."""

import importlib
import pickle
import pkgutil
import subprocess
import sys

import fresco_core
import io_pipeline
from fresco_core.errors import FrescodError, brief
from io_pipeline.worker import Failed

UNPICKLE = """
import pickle, sys
for name, error in pickle.load(sys.stdin.buffer).items():
    assert str(pickle.loads(error).error) == "a: bad", name
    found = {"torch", "numba", "scipy", "diffusers", "transformers"} & set(sys.modules)
    assert not found, f"{name} takes {found}"
"""


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


def test_every_error_of_a_worker_is_understood_without_torch() -> None:
    for package in (fresco_core, io_pipeline):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    errors = {
        kind.__qualname__: pickle.dumps(Failed(kind.__new__(kind, "a: bad")))
        for kind in subclasses(FrescodError)
        if kind.__module__.startswith(("fresco_core.", "io_pipeline."))
    }
    assert {"NoPictureError", "ClipError", "BlockError", "OutOfDeviceMemory"} <= errors.keys()
    subprocess.run([sys.executable, "-c", UNPICKLE], input=pickle.dumps(errors), check=True)


def test_what_a_library_says_is_one_line_and_not_long() -> None:
    assert brief(ValueError("no\n  room,\tat all")) == "no room, at all"
    assert brief(ValueError("x" * 300)) == "x" * 200
    assert brief(ValueError("x" * 300), 7) == "x" * 7
    assert brief(KeyboardInterrupt()) == "KeyboardInterrupt"
