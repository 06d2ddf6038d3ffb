"""Memristors in general: a conductance range, and Gaussian errors.

Reference:
    - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, section 3.3.2.
    - The range g_u that trades energy against error: J. Kern, S. Henwood et al.,
      "MemSE: fast MSE prediction for noisy memristor-based DNN accelerators",
      AICAS 2022, arXiv:2205.01707.
"""

from dataclasses import dataclass, replace

from keras import ops

from hwa_keras.core.checks import check_choice, check_not_negative, check_positive
from hwa_keras.core.types import Self, Tensor
from hwa_keras.devices.conductance import ConductanceDevice
from hwa_keras.devices.device import register, weight_range
from hwa_keras.devices.mapping import Mapping, Pairs, check_mapping

__all__ = ["Memristor"]


@register("memristor")
@dataclass(frozen=True)
class Memristor(ConductanceDevice):
    """A memristor with a conductance range [g_min, g_u] and Gaussian errors.

    As pairs: g⁺ = max(w, 0)·(g_u − g_min)/α + g_min, g⁻ = max(−w, 0)·(g_u − g_min)/α +
    g_min, with α the largest magnitude of the weights: an unused device conducts g_min.
    What is written is max(g + σ·z, 0) (`"additive"`), or max(g·(1 + σ·z), 0)
    (`"multiplicative"`), and does not age. A smaller g_u draws less power and, under
    additive noise, makes larger errors.

    Args:
        sigma: Float ≥ 0: σ in µS, or relative for multiplicative noise. Defaults to
            `0.0`.
        g_min: Float ≥ 0, the lowest conductance, µS. Defaults to `0.0`.
        g_max: Float > g_min, the highest that the technology has, µS. Defaults to
            `25.0`.
        g_u: Float in ]g_min, g_max], the highest in use, µS; None for g_max; or a tuple
            of such numbers, one for each kernel that a model has on this device, in
            the order of its layers.
        noise: `"additive"` or `"multiplicative"`. Defaults to `"additive"`.
        per: What α is the largest magnitude of: a `"layer"`'s kernel (each tile, if it
            is cut), each `"column"`, or the `"network"`'s kernels. Defaults to
            `"layer"`.
        mapping: How devices hold a weight. Defaults to one pair.
        largest_weight: Float > 0, α of `per="network"`, which one kernel cannot tell.
            `program` sets it, and training noise needs it.

    Raises:
        ValueError: If a conductance is out of its range.

    Example:
        >>> device = hwa_keras.devices.Memristor(sigma=0.5, g_max=25.0, g_u=10.0)
        >>> g, largest = device.targets(ops.convert_to_tensor([[0.5, -1.0]]))
        >>> [[float(v) for v in row[0]] for row in g]
        [[5.0, 0.0], [0.0, 10.0]]

    Reference:
        - S. Henwood, 2024, equations 3.33–3.38.
    """

    sigma: float = 0.0
    g_min: float = 0.0
    g_max: float = 25.0
    g_u: float | tuple[float, ...] | None = None
    noise: str = "additive"
    per: str = "layer"
    mapping: Mapping = Pairs()
    largest_weight: float | None = None
    drifts = False

    def __post_init__(self):
        check_not_negative("Memristor", sigma=self.sigma, g_min=self.g_min)
        check_positive("Memristor", g_max=self.g_max)
        check_choice("Memristor", ("additive", "multiplicative"), noise=self.noise)
        check_choice("Memristor", ("network", "layer", "column"), per=self.per)
        check_mapping("Memristor", self.mapping)
        if self.largest_weight is not None:
            check_positive("Memristor", largest_weight=self.largest_weight)
        g_u = self.g_max if self.g_u is None else self.g_u
        if isinstance(g_u, (list, tuple)):
            g_u = tuple(g_u)
        object.__setattr__(self, "g_u", g_u)
        for value in g_u if isinstance(g_u, tuple) else (g_u,):
            self._check_range(value)

    def _check_range(self, g_u):
        check_positive("Memristor", g_u=g_u)
        if not self.g_min < g_u <= self.g_max:
            raise ValueError(
                "`g_u`, the highest conductance in use, must be above g_min and at "
                f"most g_max. Received: g_min={self.g_min}, g_u={g_u}, "
                f"g_max={self.g_max} µS."
            )

    def for_network(self, count: int, largest: float | None) -> list[Self]:
        own = self
        is_open = self.per == "network" and self.largest_weight is None
        if is_open and largest is not None:
            own = replace(self, largest_weight=largest or 1.0)
        if not isinstance(self.g_u, tuple):
            return [own] * count
        if len(self.g_u) != count:
            raise ValueError(
                "`g_u` of Memristor must have one number for each kernel on this "
                f"device. Received: {len(self.g_u)} for {count} kernels."
            )
        return [replace(own, g_u=g_u) for g_u in self.g_u]

    def with_range(self, g_u: float | tuple[float, ...]) -> Self:
        return replace(self, g_u=g_u)

    def programming_std(self, g: Tensor) -> Tensor:
        return self.sigma * (g if self.noise == "multiplicative" else ops.ones_like(g))

    def weight_range(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.g_u, tuple):
            raise ValueError(
                "A Memristor with one g_u for each kernel of a model is for whole "
                "models: give it to `program` or `to_hwa`."
            )
        if self.per != "network":
            return weight_range(weights, self.per)
        if self.largest_weight is None:
            raise ValueError(
                "per='network' maps weights by the largest of the whole network, which "
                "one kernel cannot tell. Give it: largest_weight=..."
            )
        return self.largest_weight, 1.0

    def oracle_gain(self, state: dict[str, Tensor], t: float | Tensor) -> Tensor:
        return ops.ones(())
