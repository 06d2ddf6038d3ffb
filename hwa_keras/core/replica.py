"""replicate: an independent copy of a live Keras object, of its own class.

A chip is a copy of the user's model, and each kernel gets a copy of a quantizer and of
a noise. Keras copies through configurations, which lose what a configuration does not
tell: closures, losses that are functions, arguments that a `get_config` forgot. Here
the objects themselves are copied.
"""

import collections
import enum
import functools
import types
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from hwa_keras import backend
from hwa_keras.core.keras_private import KerasSaveable, Tracker

__all__ = ["replicate"]

# What a copy compiles again, and what only trains.
_LEFT_OUT = (
    "train_function",
    "test_function",
    "predict_function",
    "generate_function",
    "optimizer",
    "_fused",
    "_calibration",
)
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type, range, slice,
    type(Ellipsis), enum.Enum, types.ModuleType, types.BuiltinFunctionType,
    np.generic, np.ndarray,
)  # fmt: skip
_FOREIGN = ("tensorflow", "jax", "jaxlib", "numpy", "threading", "_thread", "logging")
_COPIED = (KerasSaveable, keras.Variable, keras.KerasTensor)


def replicate(obj, share_variables=False):
    """Copy a live Keras object: a model, a layer, a quantizer, a noise.

    The copy is of the same class, has variables, layers, metrics, losses and random
    states of its own, and the same structure: what is shared in the original is shared
    in the copy. Functions are copied where they refer to something that is copied.
    What is no part of Keras (lookup tables, tokenizers, data) is shared. A copy has no
    optimizer, and compiles its steps again.

    Args:
        obj: A Keras object, or a list, tuple or dictionary of some.
        share_variables: Bool. Whether the copy has the variables of the original, and
            is a second structure around them. Defaults to `False`.

    Returns:
        The copy.

    Example:
        >>> from hwa_keras.core.replica import replicate
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> copy = replicate(model)
        >>> copy.layers[0].kernel.assign(ops.zeros((8, 3))).shape == (8, 3)
        True
        >>> bool(ops.any(model.layers[0].kernel != 0))
        True
    """
    return _Replication(share_variables).run(obj)


class _Replication:
    """One copy in the making.

    Objects that can change are made empty and filled later, from a queue, so that
    cycles close and deep graphs do not exhaust the stack.
    """

    def __init__(self, share_variables):
        self.share_variables = share_variables
        self.copies = {}  # {id of an original: its copy}
        self.originals = []  # Kept alive, so that no id is given twice.
        self.queue = collections.deque()
        self.last = []  # What needs everything else to be filled.

    def run(self, obj):
        copy = self.copy(obj)
        while self.queue or self.last:
            fill = self.queue.popleft() if self.queue else self.last.pop(0)
            fill()
        return copy

    def copy(self, x):
        if isinstance(x, _ATOMS):
            return x
        if id(x) not in self.copies:
            self._keep(x, self._copy(x))
        return self.copies[id(x)]

    def _keep(self, x, copy):
        self.copies[id(x)] = copy
        self.originals.append(x)

    def _later(self, x, copy, fill):
        self._keep(x, copy)
        self.queue.append(fill)
        return copy

    def _copy(self, x):
        if isinstance(x, keras.Variable):
            return x if self.share_variables else self._variable(x)
        if isinstance(x, Tracker):
            return self._tracker(x)
        if isinstance(x, (list, dict, set)):
            return self._container(x)
        if isinstance(x, (tuple, frozenset)):
            return self._frozen(x)
        if isinstance(x, types.FunctionType):
            return self._function(x) if _reaches_keras(x) else x
        if isinstance(x, types.MethodType):
            owner = self.copy(x.__self__)
            return x if owner is x.__self__ else types.MethodType(x.__func__, owner)
        if isinstance(x, functools.partial):
            options = {key: self.copy(value) for key, value in x.keywords.items()}
            return type(x)(self.copy(x.func), *map(self.copy, x.args), **options)
        if isinstance(x, weakref.ref):
            return x if x() is None else weakref.ref(self.copy(x()))
        return self._object(x) if _is_copied(x) else x

    def _variable(self, variable):
        copy = object.__new__(type(variable))
        self._keep(variable, copy)
        attributes = {k: v for k, v in vars(variable).items() if k != "_value"}
        vars(copy).update(attributes, _value=None)
        # JAX would share, and then donate, the array.
        copy._initialize(ops.copy(variable._value))
        return copy

    def _tracker(self, tracker):
        copy = object.__new__(type(tracker))

        def fill():
            vars(copy).update(vars(tracker))
            copy.config = {
                name: (test, self.copy(store))
                for name, (test, store) in tracker.config.items()
            }
            self.last.append(fill_ids)

        def fill_ids():
            copy.stored_ids = {
                name: {id(value) for value in store}
                for name, (_, store) in copy.config.items()
            }

        return self._later(tracker, copy, fill)

    def _container(self, x):
        if wrap := backend.container_wrapper(x):
            return self._wrapped(x, wrap)
        kinds: tuple = (list, collections.OrderedDict, dict, set)
        kind: Any = next(kind for kind in kinds if isinstance(x, kind))
        cls: Any = type(x)
        copy = cls.__new__(cls)
        if isinstance(x, collections.defaultdict):
            copy.default_factory = x.default_factory
        kind.__init__(copy)

        def fill():
            if kind is list:
                list.extend(copy, [self.copy(value) for value in x])
            elif kind is set:
                set.update(copy, [self.copy(value) for value in x])
            else:
                for key, value in x.items():
                    kind.__setitem__(copy, self.copy(key), self.copy(value))
            for name, value in getattr(x, "__dict__", {}).items():
                vars(copy)[name] = self.copy(value)

        return self._later(x, copy, fill)

    def _wrapped(self, x, wrap):
        """A container as the backend wraps those that are attributes."""
        copy = wrap(type(x.__wrapped__)() if hasattr(x, "__wrapped__") else [])
        content = []

        def fill():
            if isinstance(x, dict):
                content.extend((self.copy(k), self.copy(v)) for k, v in x.items())
            else:
                content.extend(self.copy(value) for value in x)
            self.last.append(lambda: getattr(copy, _ADD[isinstance(x, dict)])(content))

        return self._later(x, copy, fill)

    def _frozen(self, x):
        if wrap := backend.container_wrapper(x):
            inside = self._frozen(x.__wrapped__)
            return x if inside is x.__wrapped__ else wrap(inside)
        items = [self.copy(value) for value in x]
        if all(a is b for a, b in zip(items, x, strict=True)):
            return x
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)

    def _function(self, function):
        """A function whose closure and defaults are copies."""
        closure = function.__closure__ or ()
        cells = tuple(types.CellType() for _ in closure)
        copy = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            None,
            cells or None,
        )
        for name in ("__qualname__", "__doc__", "__module__"):
            setattr(copy, name, getattr(function, name))

        def fill():
            for name in ("__defaults__", "__kwdefaults__"):
                setattr(copy, name, self.copy(getattr(function, name)))
            for cell, new in zip(closure, cells, strict=True):
                if _is_full(cell):
                    new.cell_contents = self.copy(cell.cell_contents)
            for name, value in vars(function).items():
                vars(copy)[name] = self.copy(value)

        return self._later(function, copy, fill)

    def _object(self, x):
        copy = object.__new__(type(x))

        def fill():
            for name, value in vars(x).items():
                left_out = isinstance(x, KerasSaveable) and name in _LEFT_OUT
                vars(copy)[name] = None if left_out else self.copy(value)
            if hasattr(x, "_nodes") and hasattr(x, "_operations"):
                self.last.append(lambda: self._rename_nodes(x, copy))

        return self._later(x, copy, fill)

    def _rename_nodes(self, function, copy):
        """Keras names the nodes of a functional model by the ids of its layers."""
        new = {str(id(op)): str(id(self.copy(op))) for op in function._operations}

        def renamed(key):
            number, separator, rest = key.partition("_")
            return f"{new.get(number, number)}{separator}{rest}"

        vars(copy)["_nodes"] = type(function._nodes)(map(renamed, function._nodes))


_ADD = {True: "update", False: "extend"}


def _is_full(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_foreign(x):
    return type(x).__module__.partition(".")[0] in _FOREIGN


def _is_copied(x):
    """Whether an object is of Keras, or holds something that is."""
    if isinstance(x, _COPIED):
        return True
    if not hasattr(x, "__dict__") or _is_foreign(x):
        return False
    if type(x).__module__.partition(".")[0] == "keras":
        return not isinstance(x, keras.DTypePolicy)
    return _reaches_keras(x)


def _reaches_keras(x):
    """Whether an object leads to something of Keras, through what is not."""
    seen, ahead = set(), [x]
    while ahead:
        found = ahead.pop()
        if isinstance(found, _COPIED):
            return True
        if isinstance(found, _ATOMS) or id(found) in seen or _is_foreign(found):
            continue
        seen.add(id(found))
        ahead += _parts(found)
    return False


def _parts(x):
    if isinstance(x, dict):
        return [*x.keys(), *x.values()]
    if isinstance(x, (list, tuple, set, frozenset)):
        return list(x)
    if isinstance(x, types.MethodType):
        return [x.__self__]
    if isinstance(x, types.FunctionType):
        cells = [c.cell_contents for c in x.__closure__ or () if _is_full(c)]
        return [*cells, x.__defaults__, x.__kwdefaults__, *vars(x).values()]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    return list(getattr(x, "__dict__", {}).values())
