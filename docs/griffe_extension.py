"""What the site's reader of docstrings must know of this package."""

import re

import griffe

_NAMES = {
    "Call arguments:": "Other Parameters: Call arguments",
    "Example:": "Examples:",
    "Reference:": "References:",
}
_SECTION = re.compile(rf"^({'|'.join(map(re.escape, _NAMES))})$", re.M)


class Sections(griffe.Extension):
    """Keras's names of sections, and functions named like their modules."""

    def on_package(self, *, pkg, **kwargs):
        for found in list(_objects(pkg)):
            if found.docstring is not None:
                _rename_sections(found.docstring)
            if found.is_module:
                _prefer_functions(found, pkg.name)


def _objects(parent):
    """An object and all that is defined in it."""
    yield parent
    for child in parent.members.values():
        if not child.is_alias:
            yield from _objects(child)


def _rename_sections(docstring):
    docstring.value = _SECTION.sub(lambda m: _NAMES[m[1]], docstring.value)


def _prefer_functions(module, package):
    """As at run time, `deployment.export` is the function of the module `export`."""
    for name, source in module.imports.items():
        own = source == f"{module.path}.{name}"  # The module itself.
        exported = name in (module.exports or ()) and not own
        if exported and source.startswith(f"{package}."):
            found = module.members[name]
            if found.is_module and name in found.members:
                function = found.members[name]
                module.members[name] = griffe.Alias(name, function, parent=module)
