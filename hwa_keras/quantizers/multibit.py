"""Quantizers to three levels, to k bits, and to as many as there are."""

from typing import Any

from keras import ops

from hwa_keras.core.types import Config, Tensor
from hwa_keras.quantizers.base import (
    Quantizer,
    check_clip_value,
    clipped_identity,
    family,
    in_float32,
    is_number,
    passed_within,
    with_pseudo_gradient,
)
from hwa_keras.quantizers.code import Code

__all__ = ["DoReFa", "NoOp", "SteTern", "dorefa", "ste_tern"]


def ste_tern(
    x: Tensor,
    threshold_value: float = 0.05,
    ternary_weight_networks: bool = False,
    clip_value: float | None = 1.0,
) -> Tensor:
    """Ternarize to -1, 0 and 1: see `SteTern`.

    Args:
        x: Tensor of any shape.
        threshold_value: Float ≥ 0, the threshold Δ.
        ternary_weight_networks: Bool. Whether Δ is 0.7·mean|x| instead.
        clip_value: Float > 0, or None to pass every gradient.

    Returns:
        A tensor of the shape and dtype of `x`.
    """

    def forward(x):
        threshold = threshold_value
        if ternary_weight_networks:
            threshold = 0.7 * ops.sum(ops.abs(x)) / ops.cast(ops.size(x), x.dtype)
        return ops.sign(ops.sign(x + threshold) + ops.sign(x - threshold))

    return with_pseudo_gradient(
        x, forward, clipped_identity(check_clip_value(clip_value))
    )


def dorefa(x: Tensor, k_bit: int = 2, mode: str = "activations") -> Tensor:
    """Quantize to `k_bit` bits as DoReFa-Net does: see `DoReFa`.

    Args:
        x: Tensor of any shape.
        k_bit: Integer from 1 to 16.
        mode: `"activations"` or `"weights"`.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    _check_dorefa(k_bit, mode)
    codes = 2**k_bit - 1

    def rounded(unit):
        return ops.round(unit * codes) / codes

    if mode == "activations":
        return with_pseudo_gradient(
            x, lambda x: rounded(ops.clip(x, 0.0, 1.0)), passed_within(0.0, 1.0)
        )
    x = ops.convert_to_tensor(x)
    limited = ops.tanh(in_float32(x))
    largest = ops.stop_gradient(ops.max(ops.abs(limited)))
    unit = ops.divide_no_nan(limited, 2.0 * largest) + 0.5
    passed = with_pseudo_gradient(unit, rounded, lambda x, upstream: upstream)
    return ops.cast(2.0 * passed - 1.0, x.dtype)


def _check_dorefa(k_bit, mode):
    if isinstance(k_bit, bool) or k_bit not in range(1, 17):
        raise ValueError(
            f"`k_bit` must be an integer from 1 to 16. Received: k_bit={k_bit}."
        )
    if mode not in ("activations", "weights"):
        raise ValueError(
            f"`mode` must be 'activations' or 'weights'. Received: mode={mode!r}."
        )


@family.register("ste_tern")
class SteTern(Quantizer):
    r"""Ternarizes to -1, 0 and 1, with a clipped straight-through gradient.

    q(x) = sign(sign(x + Δ) + sign(x − Δ)): −1 for x ≤ −Δ, 1 for x ≥ Δ, 0 between;
    dq/dx = 1 if |x| ≤ clip_value, else 0.

    Args:
        threshold_value: Float ≥ 0, the threshold Δ. Defaults to `0.05`.
        ternary_weight_networks: Bool. Whether Δ is 0.7·mean|x| instead, the threshold
            of ternary weight networks. Defaults to `False`.
        clip_value: Float > 0, or None to pass every gradient. Defaults to `1.0`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.SteTern(threshold_value=0.1)
        >>> [float(v) for v in quantizer(np.array([-0.3, 0.02, 2.0]))]
        [-1.0, 0.0, 1.0]

    Reference:
        - Li et al., "Ternary weight networks", 2016, arXiv:1605.04711.
    """

    precision = 2

    def __init__(
        self,
        threshold_value: float = 0.05,
        ternary_weight_networks: bool = False,
        clip_value: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not (is_number(threshold_value) and threshold_value >= 0):
            raise ValueError(
                "`threshold_value` must be a number and not negative. Received: "
                f"threshold_value={threshold_value!r}."
            )
        self.threshold_value = threshold_value
        self.ternary_weight_networks = bool(ternary_weight_networks)
        self.clip_value = check_clip_value(clip_value)

    def quantized(self, inputs: Tensor) -> Tensor:
        return ste_tern(
            inputs, self.threshold_value, self.ternary_weight_networks, self.clip_value
        )

    def code(self) -> Code | None:
        return Code(bits=2)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "threshold_value": self.threshold_value,
            "ternary_weight_networks": self.ternary_weight_networks,
            "clip_value": self.clip_value,
        }


@family.register("no_op")
class NoOp(Quantizer):
    """Leaves its input as it is, and says how many bits it is meant to have.

    For weights that something else keeps quantized, such as an optimizer of binary
    weights: `hwa_keras.summary` counts them with `precision` bits.

    Args:
        precision: Integer ≥ 1, bits.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.NoOp(precision=1)
        >>> [float(v) for v in quantizer(np.array([-0.25, 2.0]))]
        [-0.25, 2.0]
    """

    def __init__(self, precision: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(precision, bool) or precision not in range(1, 65):
            raise ValueError(
                "`precision` must be an integer from 1 to 64. Received: "
                f"precision={precision!r}."
            )
        self.precision = int(precision)

    def quantized(self, inputs: Tensor) -> Tensor:
        return ops.convert_to_tensor(inputs)

    def code(self) -> Code | None:
        # What keeps the weights quantized is not known, but for a bit: ± a magnitude.
        return Code(bits=1, offset=0.5) if self.precision == 1 else None

    def get_config(self) -> Config:
        return {**super().get_config(), "precision": self.precision}


@family.register("dorefa", "dorefa_quantizer")
class DoReFa(Quantizer):
    r"""Quantizes to `k_bit` bits as DoReFa-Net does.

    With n = 2^k_bit − 1: for activations q(x) = round(n·clip(x, 0, 1))/n with
    dq/dx = 1 for 0 ≤ x ≤ 1, else 0; for weights
    q(w) = 2·round(n·(tanh(w)/(2·max|tanh(w)|) + ½))/n − 1 with the gradient of the
    formula without the rounding, the maximum taken as constant.

    Args:
        k_bit: Integer from 1 to 16. Defaults to `2`.
        mode: `"activations"` (range 0 to 1) or `"weights"` (range -1 to 1).
            Defaults to `"activations"`.
        metrics: `["flip_ratio"]` or None, as for every quantizer.

    Example:
        >>> quantizer = hwa_keras.quantizers.DoReFa(k_bit=2)
        >>> [round(float(v), 3) for v in quantizer(np.array([-1.0, 0.3, 0.6, 2.0]))]
        [0.0, 0.333, 0.667, 1.0]

    Reference:
        - Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160.
    """

    def __init__(
        self, k_bit: int = 2, mode: str = "activations", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        _check_dorefa(k_bit, mode)
        self.k_bit = int(k_bit)
        self.mode = mode

    @property
    def precision(self) -> int:
        return self.k_bit

    def quantized(self, inputs: Tensor) -> Tensor:
        return dorefa(inputs, self.k_bit, self.mode)

    def code(self) -> Code | None:
        codes = 2**self.k_bit - 1
        if self.mode == "weights":
            return Code(self.k_bit, offset=0.5, step=2.0 / codes)
        return Code(self.k_bit, offset=2.0 ** (self.k_bit - 1), step=1.0 / codes)

    def get_config(self) -> Config:
        return {**super().get_config(), "k_bit": self.k_bit, "mode": self.mode}
