"""Rules: which hardware each kernel gets, and which kernels stay digital."""

import warnings

from hwa_keras.circuits.hardware import Hardware
from hwa_keras.core.kernels import check_selector, matches

__all__ = ["Rules", "resolved_skip"]


class Rules:
    """Decides for each kernel of a model, by its layer.

    Args:
        kernels: List of the `Kernel`s of the model.
        default: The `Hardware` of kernels that no rule is about.
        rules: List of pairs `(selector, settings)`; for each kernel the first that
            matches wins. The settings are a `Hardware`, a dictionary of arguments of
            `Hardware`, where a missing key means the default; or None, which leaves
            the layer digital.
        skip: Layers to leave digital: `"first"` and `"last"` mean the first and last
            layer with a kernel; anything else is a selector as in `rules`.

    Raises:
        TypeError: If a rule is no such pair.
        ValueError: If a rule has unknown settings or names a layer that is not there.
    """

    def __init__(self, kernels, default, rules=(), skip=()):
        self._default = default
        self._rules = [self._checked(rule, kernels) for rule in rules or ()]
        self._skip = resolved_skip(skip, kernels)

    def _checked(self, rule, kernels):
        if not isinstance(rule, (tuple, list)) or len(rule) != 2:
            raise TypeError(
                "A rule is a pair (selector, settings), as in "
                f"('conv_1', {{'kernel_noise': None}}). Received: {rule!r}."
            )
        selector, settings = rule
        check_selector(selector, kernels)
        if not any(matches(selector, kernel) for kernel in kernels):
            warnings.warn(
                f"The rule for {selector!r} matches no layer with a kernel.",
                stacklevel=5,
            )
        if settings is None or isinstance(settings, Hardware):
            return selector, settings
        if not isinstance(settings, dict):
            raise TypeError(
                f"The settings of the rule for {selector!r} must be a Hardware, a "
                f"dictionary of its arguments or None. Received: {settings!r}."
            )
        try:
            return selector, self._default.with_settings(**settings)
        except ValueError as error:
            raise ValueError(f"In the rule for {selector!r}: {error}") from error

    def __call__(self, kernel):
        """A pair: the `Hardware` of a kernel or None, and why it stays digital."""
        if kernel.digital:
            return None, kernel.digital
        if kernel.hardware is not None:
            name = type(kernel.owner).__name__
            return None, f"{name} does its own quantization and noise"
        for matched, reason in self._skip:
            if matched(kernel):
                return None, reason
        for selector, settings in self._rules:
            if matches(selector, kernel):
                if settings is None:
                    return None, f"left digital by the rule for {selector!r}"
                return settings, ""
        return self._default, ""


def resolved_skip(skip, kernels):
    """Pairs (function from a `Kernel` to whether it is left out, why) of a `skip`."""
    if isinstance(skip, str) or not isinstance(skip, (tuple, list)):
        skip = (skip,)
    ends = {"first": kernels[:1], "last": kernels[-1:]}
    resolved = []
    for selector in skip:
        if isinstance(selector, str) and selector in ends:
            owners = [kernel.owner for kernel in ends[selector]]
            reason = f"skipped: the {selector} layer"
            resolved.append((lambda k, owners=owners: k.owner in owners, reason))
        else:
            check_selector(selector, kernels)
            name = getattr(selector, "__name__", selector)
            resolved.append(
                (lambda k, s=selector: matches(s, k), f"skipped: matches {name!r}")
            )
    return resolved
