"""Families of serializable objects: quantizers, noises, devices.

A family knows its members by class name, by snake-case alias and by configuration,
which gives every family the trio that Keras users expect: `get`, `serialize`,
`deserialize`.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import keras

PACKAGE = "hwa_keras"

_Member = TypeVar("_Member", bound=type)


class Family:
    """The registered classes of one kind.

    Args:
        kind: What a member is called in messages, e.g. `"quantizer"`.
        takes_callables: Bool. Whether `get` accepts any callable as it is.

    Attributes:
        base: A class whose objects are members too, registered or not; or None.
    """

    def __init__(self, kind: str, takes_callables: bool = False) -> None:
        self.kind = kind
        self.takes_callables = takes_callables
        self.base: type | None = None
        self._members = {}

    def register(
        self, *aliases: str, package: str | None = None
    ) -> Callable[[_Member], _Member]:
        """Class decorator: name a class, and let files that hold its objects load.

        Afterwards `get` takes the aliases and the name of the class, and `.keras` files
        load in any process that has imported the module of the class. Defining the same
        class again, as when a cell of a notebook runs twice, replaces it.

        Args:
            *aliases: Strings, further names of the class, in snake case by custom.
            package: String, what precedes the name of the class in files:
                `"my_lab>Leaky"`. Once files exist it must stay. Defaults to `"Custom"`,
                as in `keras.saving.register_keras_serializable`.

        Raises:
            TypeError: If an alias is not a string, or the class not of this kind.
            ValueError: If another class has one of the names.
        """
        for alias in aliases:
            if not (isinstance(alias, str) and alias):
                raise TypeError(
                    f"A {self.kind} is registered under names: "
                    f'@register("my_{self.kind}", package="my_lab"). Received: '
                    f"{alias!r}."
                )

        def decorate(cls):
            prefix = package or _default_package(cls)
            names = (cls.__name__, *aliases)
            self._check_free(cls, names, prefix)
            keras.saving.register_keras_serializable(package=prefix)(cls)
            self._members.update(dict.fromkeys(names, cls))
            return cls

        return decorate

    def _check_free(self, cls, names, prefix):
        """Raise an error for a class that cannot be a member under these names."""
        if self.base is not None and not issubclass(cls, self.base):
            raise TypeError(
                f"A {self.kind} must be a subclass of {self.base.__name__}, and "
                f"{cls.__name__} is not."
            )
        taken = {name: self._members.get(name) for name in names}
        saved_as = f"{prefix}>{cls.__name__}"
        taken[saved_as] = keras.saving.get_registered_object(saved_as)
        for name, owner in taken.items():
            if owner is not None and _path(owner) != _path(cls):
                raise ValueError(
                    f"The name '{name}' of the {self.kind} {_path(cls)} is taken by "
                    f"{_path(owner)}. Choose another alias, or another name for the "
                    f"class. Names of {self.kind}s in use: "
                    f"{', '.join(self.aliases())}."
                )

    def aliases(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self._members)

    def get(self, identifier: Any, **kwargs: Any) -> Any:
        """Resolve None, a name, a configuration or an object.

        Args:
            identifier: `None`; a class name or alias, which gives an object of that
                class; a dictionary made by `serialize`; a member of the family, which
                is returned as it is.
            **kwargs: Arguments of the class, with a name only. Defaults to its own.

        Returns:
            An object of the family, or None for None.

        Raises:
            ValueError: If a name is not known; the message lists the known ones.
            TypeError: If the identifier is of no accepted kind, or arguments come with
                anything but a name.
        """
        if kwargs and not isinstance(identifier, str):
            raise TypeError(
                f"Arguments ({', '.join(kwargs)}) go with the name of a {self.kind}. "
                f"Received: {identifier!r}."
            )
        if identifier is None:
            return None
        if isinstance(identifier, str):
            if identifier not in self._members:
                raise ValueError(
                    f"Unknown {self.kind} '{identifier}'. Known names: "
                    f"{', '.join(self.aliases())}. An object of your own works too."
                )
            return self._made(self._members[identifier], kwargs)
        if isinstance(identifier, dict):
            return self._from_config(identifier)
        members = (*set(self._members.values()), *([self.base] if self.base else []))
        if isinstance(identifier, members):
            return identifier
        if isinstance(identifier, type):
            raise TypeError(
                f"A {self.kind} must be an object, and {identifier.__name__} is a "
                f"class. Write {identifier.__name__}(...)."
            )
        if self.takes_callables and callable(identifier):
            return identifier
        raise TypeError(
            f"Could not interpret {identifier!r} (of type "
            f"{type(identifier).__name__}) as a {self.kind}. Give a name "
            f"({', '.join(self.aliases())}), a {self.kind} object or None."
        )

    def _from_config(self, config):
        member = self.deserialize(config)
        if isinstance(member, dict):  # What Keras makes of any other dictionary.
            raise ValueError(
                f"A dictionary must be the configuration of a {self.kind}, as "
                f"`serialize` makes it, with 'class_name' and 'config'. Received: "
                f"{config}."
            )
        return self.get(member)

    def _made(self, cls, kwargs):
        required = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            and name not in kwargs
        ]
        if required:
            raise ValueError(
                f"{cls.__name__} has no default for {', '.join(required)}, so a name "
                f"is not enough. Give an object: {cls.__name__}({required[0]}=...)."
            )
        return cls(**kwargs)

    def serialize(self, member: Any) -> Any:
        """The configuration of a member, for `deserialize`."""
        config = keras.saving.serialize_keras_object(member)
        if isinstance(config, dict):
            # When and for which shape it is built is up to the layer that it serves.
            config.pop("build_config", None)
        return config

    def deserialize(self, config: Any) -> Any:
        """The member that a configuration of `serialize` describes."""
        return keras.saving.deserialize_keras_object(config)


def _default_package(cls):
    """What precedes the name of a class in files unless its author says it."""
    return PACKAGE if _path(cls).startswith(f"{PACKAGE}.") else "Custom"


def _path(cls):
    return f"{cls.__module__}.{cls.__qualname__}"
