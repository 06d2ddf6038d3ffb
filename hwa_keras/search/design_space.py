"""DesignSpace: architectures together with the conductance ranges of their layers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

from hwa_keras.core.checks import check_choice, check_count, is_number
from hwa_keras.core.types import ArrayLike, Self

__all__ = ["Candidate", "DesignSpace"]

_PROTOCOL = ("choices", "encode", "decode", "sample", "layers", "active")
_TRIES = 50  # Draws for each architecture that is asked for, until they are distinct.


@dataclass(frozen=True)
class Candidate:
    """One network of a design space, with the conductance ranges of its layers.

    Args:
        config: Dictionary from the names of the choices to the options taken.
        multipliers: Tuple of floats, one for each kernel of the largest network:
            g_u in units of its default, or 0 where the network has no such layer.

    Example:
        >>> candidate = hwa_keras.search.Candidate({"depth": 1}, (0.8, 0.0))
        >>> candidate.mask
        (True, False)
        >>> hwa_keras.search.Candidate.from_dict(candidate.to_dict()) == candidate
        True
    """

    config: dict[str, Any]
    multipliers: tuple[float, ...]

    def __post_init__(self):
        config = {str(name): _plain(option) for name, option in self.config.items()}
        multipliers = tuple(float(m) for m in self.multipliers)
        if not all(np.isfinite(m) and m >= 0 for m in multipliers):
            raise ValueError(
                "`multipliers` of Candidate must be finite and not negative, 0 where "
                f"the network has no such layer. Received: {self.multipliers}."
            )
        object.__setattr__(self, "config", config)
        object.__setattr__(self, "multipliers", multipliers)

    def __hash__(self):
        return hash(self.key)

    @property
    def mask(self) -> tuple[bool, ...]:
        """Tuple of bools: whether the network has the layer."""
        return tuple(m > 0 for m in self.multipliers)

    @property
    def key(self) -> str:
        """String that only equal candidates share."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def scaled(self, coefficient: float) -> "Candidate":
        """The same network with all ranges multiplied by a coefficient."""
        return Candidate(self.config, tuple(coefficient * m for m in self.multipliers))

    def to_dict(self) -> dict[str, Any]:
        """The candidate as what JSON can hold; `from_dict` reads it."""
        return {
            "config": {name: _listed(option) for name, option in self.config.items()},
            "multipliers": list(self.multipliers),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The candidate that `to_dict` wrote."""
        return cls(content["config"], content["multipliers"])


class DesignSpace:
    """The architectures of a supernet, each with multipliers of its layers' g_u.

    A point of the space is a vector of genes: one index for each choice of the
    architecture, then the multipliers. Those of layers that the architecture does not
    have are 0, which lies outside of the bounds and so marks them.

    Args:
        architecture: An object with `choices` (each with `name` and `options`),
            `layers`, `encode(config)`, `decode(indices)`, `sample(rng)` and
            `active(config)`, such as the `space` of a `Supernet`.
        multipliers: Pair of floats, 0 < low ≤ high: the bounds of g_u in units of each
            kernel's default. Defaults to `(0.5, 1.5)`.
        per: What has a multiplier of its own: each `"layer"`, the `"network"`, or
            None, with which all ranges are the default ones. Defaults to `"layer"`.

    Raises:
        TypeError: If the architecture lacks a part.
        ValueError: If a choice has no options, or an argument is out of its range.

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 6.2.1; the
          bounds are those of equation 6.2.
    """

    def __init__(
        self,
        architecture: Any,
        multipliers: Sequence[float] = (0.5, 1.5),
        per: str | None = "layer",
    ) -> None:
        missing = [name for name in _PROTOCOL if not hasattr(architecture, name)]
        if missing:
            raise TypeError(
                f"An architecture space needs {', '.join(_PROTOCOL)}. "
                f"{type(architecture).__name__} has no {', '.join(missing)}."
            )
        for choice in architecture.choices:
            if not len(choice.options):
                raise ValueError(
                    f"The choice '{choice.name}' has no options. Give at least one."
                )
        check_choice("DesignSpace", ("layer", "network", None), per=per)
        self.architecture = architecture
        self.low, self.high = _bounds(multipliers)
        self.per = per
        self.layers = tuple(architecture.layers)
        self.sizes = np.array([len(c.options) for c in architecture.choices], int)

    @property
    def ranges(self) -> int:
        """Number of genes that are multipliers."""
        return {"layer": len(self.layers), "network": 1, None: 0}[self.per]

    @property
    def default(self) -> float:
        """The multiplier of a layer that an architecture gains: 1, within bounds."""
        return float(np.clip(1.0, self.low, self.high))

    @property
    def lower(self) -> np.ndarray:
        """The smallest value of each gene; that of a multiplier in use is `low`."""
        return np.zeros(len(self.sizes) + self.ranges)

    @property
    def upper(self) -> np.ndarray:
        """The largest value of each gene."""
        return np.concatenate([self.sizes - 1.0, np.full(self.ranges, self.high)])

    def split(self, genes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The indices and the multipliers of an array of genes `[..., genes]`."""
        genes = np.asarray(genes)
        return genes[..., : len(self.sizes)], genes[..., len(self.sizes) :]

    def active(self, indices: np.ndarray) -> np.ndarray:
        """Which layers architectures have: bools `[n, layers]` of indices `[n, k]`."""
        return self._for_each(self.architecture.active, indices, len(self.layers), bool)

    def canonical(self, indices: np.ndarray) -> np.ndarray:
        """Indices `[n, k]`, those that make no difference as the space decodes them."""
        size = len(self.sizes)
        return self._for_each(self.architecture.encode, indices, size, float)

    def _for_each(self, function, indices, size, dtype):
        """A function of the configurations of indices, `[n, size]`."""
        rows = np.asarray(indices, int).tolist()
        known = {}
        places = [known.setdefault(tuple(row), len(known)) for row in rows]
        found = np.zeros((len(known), size), dtype)
        for row, i in known.items():
            found[i] = function(self.architecture.decode(np.array(row, int)))
        return found[places]

    def in_use(self, indices: np.ndarray) -> np.ndarray:
        """Which multipliers architectures need: bools `[n, ranges]`."""
        if self.per == "layer":
            return self.active(indices)
        return np.ones((len(indices), self.ranges), bool)

    def candidate(self, genes: ArrayLike) -> Candidate:
        """The `Candidate` of a vector of genes."""
        indices, multipliers = self.split(np.asarray(genes, float))
        config = self.architecture.decode(np.rint(indices).astype(int))
        mask = np.asarray(self.architecture.active(config), bool)
        values = multipliers if self.ranges else [self.default]
        return Candidate(config, np.where(mask, values, 0.0))

    def genes(self, candidate: Candidate) -> np.ndarray:
        """The genes of a `Candidate`, a float vector.

        Raises:
            ValueError: If the candidate has another number of layers.
        """
        if len(candidate.multipliers) != len(self.layers):
            raise ValueError(
                f"The candidate has {len(candidate.multipliers)} multipliers, and the "
                f"space {len(self.layers)} layers."
            )
        indices = np.asarray(self.architecture.encode(candidate.config), float)
        multipliers = np.array(candidate.multipliers)
        if self.per == "network":
            multipliers = multipliers[multipliers > 0][:1]
        return np.concatenate([indices, multipliers[: self.ranges]])

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Genes of random architectures `[count, genes]`, distinct where possible.

        Multipliers are one Latin hypercube sample over all of them.

        Args:
            count: Integer ≥ 1.
            rng: A `numpy.random.Generator`.
        """
        indices = self._architectures(count, rng)
        genes = np.concatenate([indices, self._hypercube(len(indices), rng)], axis=1)
        return self._masked(genes)

    def latin_hypercube(
        self, architectures: int, ranges: int = 1, seed: int = 0
    ) -> list[Candidate]:
        """Candidates for a data set: random architectures, several ranges of each.

        Args:
            architectures: Integer ≥ 1, k of the thesis.
            ranges: Integer ≥ 1, k_g: how many vectors of multipliers are drawn for
                each architecture, as a Latin hypercube sample within the bounds.
                Defaults to `1`.
            seed: Integer. Defaults to `0`.

        Returns:
            A list of architectures·ranges `Candidate`s, those of one architecture side
            by side; fewer if there are fewer architectures.

        Reference:
            - S. Henwood, 2024, section 6.3.1, equation 6.6.
        """
        check_count("latin_hypercube", architectures=architectures, ranges=ranges)
        rng = np.random.default_rng(seed)
        found = []
        for indices in self._architectures(architectures, rng):
            several = np.repeat(indices[None], ranges, axis=0)
            genes = np.concatenate([several, self._hypercube(ranges, rng)], axis=1)
            found += [self.candidate(row) for row in self._masked(genes)]
        return found

    def _architectures(self, count, rng):
        """Random indices `[count, k]`, distinct; fewer if no more are found."""
        found = {}
        for _ in range(_TRIES * count):
            config = self.architecture.sample(rng)
            indices = np.asarray(self.architecture.encode(config), float)
            found.setdefault(indices.tobytes(), indices)
            if len(found) == count or not len(self.sizes):
                break
        rows = list(found.values())
        if not len(self.sizes):  # Only ranges to choose.
            rows = rows * count
        return np.array(rows)

    def _hypercube(self, count, rng):
        """Multipliers `[count, ranges]`, one in each of `count` strata of each."""
        if not self.ranges:
            return np.zeros((count, 0))
        unit = qmc.LatinHypercube(self.ranges, rng=rng).random(count)
        return self.low + (self.high - self.low) * unit

    def _masked(self, genes):
        indices, multipliers = self.split(genes)
        masked = np.where(self.in_use(indices), multipliers, 0.0)
        return np.concatenate([indices, masked], axis=1)

    def describe(self) -> dict[str, Any]:
        """What tells this space from another, as what JSON can hold."""
        return {
            "choices": {
                choice.name: [_listed(_plain(option)) for option in choice.options]
                for choice in self.architecture.choices
            },
            "layers": list(self.layers),
            "multipliers": [self.low, self.high],
            "per": self.per,
        }


def _bounds(multipliers):
    pair = tuple(multipliers) if np.ndim(multipliers) == 1 else ()
    numbers = len(pair) == 2 and all(is_number(m) for m in pair)
    if not (numbers and 0 < pair[0] <= pair[1] < np.inf):
        raise ValueError(
            "`multipliers` of DesignSpace must be a pair (low, high) with 0 < low ≤ "
            f"high. Received: {multipliers!r}."
        )
    return float(pair[0]), float(pair[1])


def _plain(option):
    """An option without NumPy's types, lists as tuples."""
    if isinstance(option, (list, tuple)):
        return tuple(_plain(each) for each in option)
    return option.item() if isinstance(option, np.generic) else option


def _listed(option):
    """An option with lists for tuples, as JSON has them."""
    return [_listed(o) for o in option] if isinstance(option, tuple) else option
