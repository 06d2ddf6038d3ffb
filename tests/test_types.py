"""What a type checker sees: every public signature is annotated."""

import functools
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import hwa_keras

pytestmark = pytest.mark.slow  # Signatures, the same on any backend.

INTERNAL = ("hwa_keras.core", "hwa_keras.backend")


def public_modules():
    """The package, its sub-packages, and the modules that an `__all__` names."""
    found = pkgutil.walk_packages(hwa_keras.__path__, "hwa_keras.")
    names = [m.name for m in found if m.ispkg and m.name not in INTERNAL]
    waiting = [hwa_keras, *map(importlib.import_module, names)]
    modules = []
    while waiting:
        module = waiting.pop()
        if module not in modules:
            modules.append(module)
            members = (getattr(module, name) for name in module.__all__)
            waiting += [m for m in members if isinstance(m, ModuleType)]
    return modules


def functions_of(attribute):
    """The functions behind an attribute of a class or a module."""
    if isinstance(attribute, property):
        parts = (attribute.fget, attribute.fset)
    elif isinstance(attribute, functools.cached_property):
        parts = (attribute.func,)
    else:
        parts = (getattr(attribute, "__func__", attribute),)
    return [inspect.unwrap(part) for part in parts if inspect.isfunction(part)]


def is_ours(member):
    return (getattr(member, "__module__", None) or "").startswith("hwa_keras")


def is_written(function):
    """Whether a function has a signature in the source: no `lambda`, no dataclass's."""
    generated = function.__code__.co_filename.startswith("<")
    return not generated and function.__name__ != "<lambda>"


def attributes_of(cls):
    """What a class and its bases in this package define for its users."""
    special = ("__init__", "__call__", "__len__", "__getitem__", "__iter__")
    return [
        attribute
        for base in filter(is_ours, cls.__mro__)
        for name, attribute in vars(base).items()
        if not name.startswith("_") or name in special
    ]


def public_functions():
    """The functions, methods and properties behind every `__all__`, each once."""
    members = [
        getattr(module, name) for module in public_modules() for name in module.__all__
    ]
    attributes = [
        attribute
        for member in members
        for attribute in (
            attributes_of(member) if isinstance(member, type) else [member]
        )
    ]
    found = [function for each in attributes for function in functions_of(each)]
    return dict.fromkeys(f for f in found if is_ours(f) and is_written(f))


def bare(function):
    """The parts of a signature without an annotation."""
    signature = inspect.signature(function)
    names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty
    ]
    if signature.return_annotation is signature.empty:
        names.append("return")
    return [name for name in names if name not in ("self", "cls")]


def test_every_public_signature_is_annotated():
    functions = public_functions()
    assert len(functions) > 900
    missing = [
        f"{function.__module__}.{function.__qualname__}: {', '.join(names)}"
        for function in functions
        if (names := bare(function))
    ]
    assert not missing, "\n".join(["Not annotated:", *sorted(missing)])
