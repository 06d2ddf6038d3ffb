"""Families of serializable objects: quantizers, noises, devices.

A family knows its members by class name, by snake-case alias and by configuration,
which gives every family the trio that Keras users expect: `get`, `serialize`,
`deserialize`.
"""

import inspect

import keras

PACKAGE = "hwa_keras"


class Family:
    """The registered classes of one kind.

    Args:
        kind: What a member is called in messages, e.g. `"quantizer"`.
        takes_callables: Bool. Whether `get` accepts any callable as it is.

    Attributes:
        base: A class whose objects are members too, registered or not; or None.
    """

    def __init__(self, kind, takes_callables=False):
        self.kind = kind
        self.takes_callables = takes_callables
        self.base = None
        self._members = {}

    def register(self, *aliases):
        """Class decorator: register with Keras and under the given aliases."""

        def decorate(cls):
            keras.saving.register_keras_serializable(package=PACKAGE)(cls)
            for name in (cls.__name__, *aliases):
                self._members[name] = cls
            return cls

        return decorate

    def aliases(self):
        """The known names, sorted."""
        return sorted(self._members)

    def get(self, identifier):
        """Resolve None, a name, a configuration or an object.

        Args:
            identifier: `None`; a class name or alias, which gives the object with
                its default arguments; a dictionary made by `serialize`; a member of
                the family, which is returned as it is.

        Returns:
            An object of the family, or None for None.

        Raises:
            ValueError: If a name is not known; the message lists the known ones.
            TypeError: If the identifier is of no accepted kind.
        """
        if identifier is None:
            return None
        if isinstance(identifier, str):
            if identifier not in self._members:
                raise ValueError(
                    f"Unknown {self.kind} '{identifier}'. Known names: "
                    f"{', '.join(self.aliases())}. An object of your own works too."
                )
            return self._with_defaults(self._members[identifier])
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

    def _with_defaults(self, cls):
        required = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        if required:
            raise ValueError(
                f"{cls.__name__} has no default for {', '.join(required)}, so a name "
                f"is not enough. Give an object: {cls.__name__}({required[0]}=...)."
            )
        return cls()

    def serialize(self, member):
        """The configuration of a member, for `deserialize`."""
        config = keras.saving.serialize_keras_object(member)
        if isinstance(config, dict):
            # When and for which shape it is built is up to the layer that it serves.
            config.pop("build_config", None)
        return config

    def deserialize(self, config):
        """The member that a configuration of `serialize` describes."""
        return keras.saving.deserialize_keras_object(config)
