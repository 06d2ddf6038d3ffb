"""What the arrays of a model on crossbars take: devices, wires, converters, adders."""

import math

import keras

from hwa_keras.core.checks import check_count
from hwa_keras.core.types import Data
from hwa_keras.crossbar import Crossbar
from hwa_keras.deployment.batchnorm import calibration_batches
from hwa_keras.layers.product_families import product_of
from hwa_keras.profile.array_result import ArrayEnergy, KernelArrayEnergy
from hwa_keras.profile.array_run import CELLS, ArrayRun
from hwa_keras.profile.converters import Periphery

__all__ = ["array_energy"]

_SIEMENS = 1e-6  # of a µS


def array_energy(
    model: keras.Model,
    data: Data,
    crossbar: Crossbar | None = None,
    periphery: Periphery | None = None,
    batches: int = 13,
    batch_size: int = 200,
) -> ArrayEnergy:
    """The power and the energy of a model's arrays for one example.

    Runs the data through the model as at inference, and has the inputs of each kernel
    drive the rows of its arrays: those that programming would aim at, or what the
    devices of a chip hold at its time t, without read noise.

    Without `v_read`, it is the power of the thesis: inputs have no unit, conductances
    are in µS, r = 1, and each product of a convolution counts. With both arrays of a
    pair,

        P_mem = Σ f(x∘x, g⁺ + g⁻),   P_TIA = Σ f(x, g⁺)² + Σ f(x, g⁻)²,

    the sums over all outputs, the mean over examples. (As printed, 3.43 and 3.44 lack
    the square: an amplifier of the output voltage y = r·I takes y²/r.)

    With `v_read` and `t_read` of the crossbar it is an energy, in J:

    - array and wires: t_read·Σ V·I, with v_read for the largest input that the DAC
      takes, or without a DAC for the largest of the data. Where the crossbar has
      wires, their currents are solved, also with `ir_drop="off"`;
    - TIAs: t_read·r·I², one for each column of each array;
    - DACs: one conversion for each row of each tile that a product drives; both arrays
      of a pair share it;
    - ADCs: one conversion for each column of each tile, or two where a pair is
      subtracted digitally; one for each slice of `devices.BitSlices`;
    - digital: an addition for each sum of a tile beyond the first, for a digital bias
      and for an activation.

    Bits are those of a kernel's own converters, in a plain model of the crossbar's;
    without one, that part is 0 and the result says so. An analog bias is a row more.

    Args:
        model: A built Keras model, its layers on hardware or not, or a chip. Of a model
            with layers on hardware only those count, without `crossbar` only those with
            a device, and of a plain model all kernels.
        data: Inputs, as `calibrate` takes them.
        crossbar: A `crossbar.Crossbar`. A chip's devices, and tiles and converters of
            layers on hardware, stay their own. None for that of each layer.
        periphery: A `profile.Periphery`: what converters, amplifiers and additions
            take; None for `Periphery()`.
        batches: Integer ≥ 1, the largest number of batches. Defaults to `13`.
        batch_size: Integer ≥ 1, for arrays. Defaults to `200`.

    Returns:
        An `ArrayEnergy`: `kernels`, `parts`, `total`, `joules`, `watts`, `to_dict()`,
        `table()`.

    Raises:
        TypeError: If it is no Keras model, or a device has no conductances.
        ValueError: If the model is not built, one of `v_read` and `t_read` is missing,
            a kernel is of no known family or not reached, or the data is not finite.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((2,)),
        ...     keras.layers.Dense(1, kernel_initializer="ones", name="dense"),
        ... ])
        >>> device = hwa_keras.devices.Memristor(g_max=10.0)
        >>> x = np.array([[0.5, 1.0]])
        >>> found = hwa_keras.profile.array_energy(
        ...     model, x, hwa_keras.crossbar.Crossbar(device)
        ... )
        >>> found.parts["array"], found.parts["tias"]  # 10·(0.25 + 1), (10·1.5)²
        (12.5, 225.0)
        >>> crossbar = hwa_keras.crossbar.Crossbar(device, v_read=0.2, t_read=1e-7)
        >>> found = hwa_keras.profile.array_energy(model, x, crossbar)
        >>> round(found.parts["array"] * 1e15, 3)  # 0.1 µs·(0.2 V)²·12.5 µS, in fJ
        50.0

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, equations 3.39–3.44.
        - J. Kern, S. Henwood et al., AICAS 2022, arXiv:2205.01707 (MemSE).
    """
    periphery = Periphery() if periphery is None else periphery
    _check(model, crossbar, periphery)
    check_count("array_energy", batches=batches, batch_size=batch_size)
    inputs = calibration_batches(data, batches, batch_size)
    run = ArrayRun(model, crossbar)
    v_read, t_read = run.v_read, run.t_read
    if t_read is not None and periphery.adc is None and t_read < 1e-9:
        raise ValueError(
            "The table of ADCs holds for 1 GS/s or less. Received: "
            f"t_read={t_read} s. Give the energy itself: Periphery(adc=...)."
        )
    run.drive(inputs)
    examples = sum(int(keras.tree.flatten(batch)[0].shape[0]) for batch in inputs)
    rows = [
        _row(place, driven, examples, v_read, t_read, periphery)
        for place, driven in run.driven.items()
    ]
    assumed = _assumptions(run, rows, v_read, periphery)
    return ArrayEnergy(model.name, tuple(rows), v_read, t_read, run.digital, assumed)


def _check(model, crossbar, periphery):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`array_energy` takes a built Keras model or a chip. Received: "
            f"{model!r} of type {type(model).__name__}."
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights yet. Call it "
            "once on a batch of inputs, or begin it with keras.Input(shape)."
        )
    if crossbar is not None and not isinstance(crossbar, Crossbar):
        raise TypeError(
            "`crossbar` of array_energy must be a crossbar.Crossbar, which has devices "
            f"of conductances, or None. Received: crossbar={crossbar!r}."
        )
    if not isinstance(periphery, Periphery):
        raise TypeError(
            "`periphery` of array_energy must be a profile.Periphery. Received: "
            f"periphery={periphery!r}."
        )


def _row(kernel, driven, examples, v_read, t_read, periphery):
    """The `KernelArrayEnergy` of a kernel."""
    if driven.products == 0:
        raise ValueError(
            f"'{kernel.path}' was not called by the data, so that its inputs are not "
            "known. Give inputs that reach it."
        )
    power = driven.device_power() / examples
    if not (math.isfinite(power) and math.isfinite(driven.currents)):
        raise ValueError(
            f"The inputs or the conductances of '{kernel.path}' are not finite. Clean "
            "the data first."
        )
    devices, wired = driven.wired_shares()
    figures = {
        "array": power * devices,
        "wires": power * wired,
        "tias": driven.currents / examples,
    }
    bits = [getattr(c, "precision", None) for c in driven.converters]
    products = driven.products / examples
    if v_read is not None:
        figures = _joules(figures, driven, v_read, t_read, periphery)
        figures |= _conversions(kernel, driven, products, bits, periphery)
        figures["seconds"] = products * t_read
    return KernelArrayEnergy(
        kernel.path,
        driven.tiling.rows,
        driven.tiling.columns,
        driven.tiling.grid,
        products,
        bits[0],
        bits[1],
        **figures,
    )


def _joules(figures, driven, v_read, t_read, periphery):
    """Unit-free powers of a kernel in J."""
    volt = v_read if driven.has_bound else v_read / (driven.largest_input or 1.0)
    resistance = periphery.tia_resistance
    if resistance is None:
        largest = _SIEMENS * volt * driven.largest_current
        resistance = v_read / largest if largest else 0.0
    return {
        "array": t_read * volt**2 * _SIEMENS * figures["array"],
        "wires": t_read * volt**2 * _SIEMENS * figures["wires"],
        "tias": t_read * resistance * (volt * _SIEMENS) ** 2 * figures["tias"],
    }


def _conversions(kernel, driven, products, bits, periphery):
    """Energies of converters and additions, J."""
    dac_bits, adc_bits = bits
    outputs = driven.tiling.columns
    slices = driven.count // 2 if driven.is_sliced else 1
    sums = outputs * driven.tiling.grid[0] * slices
    if periphery.subtraction == "digital":
        sums = driven.columns * driven.count
    additions = sums - outputs + outputs * _additions_behind(kernel)
    dac = 0.0 if dac_bits is None else periphery.of_dac(dac_bits)
    adc = 0.0 if adc_bits is None else periphery.of_adc(adc_bits)
    return {
        "dacs": products * driven.driven_rows * dac,
        "adcs": products * sums * adc,
        "digital": products * additions * periphery.addition,
    }


def _additions_behind(kernel):
    """Additions for each output of a kernel: bias, second product, activation."""
    layer, [attribute, *_] = kernel.owner, kernel.keys
    if isinstance(layer, CELLS):
        return 2 if attribute == "recurrent_kernel" else int(layer.use_bias)
    if attribute != product_of(layer)[-1].attribute:
        return 0
    is_linear = layer.activation in (None, keras.activations.linear)
    has_bias = layer.bias is not None and kernel.hardware.hardware.bias == "digital"
    return int(has_bias) + int(not is_linear)


def _assumptions(run, rows, v_read, periphery):
    """What was assumed, a tuple of lines."""
    held = "programming targets"
    if run.is_chip:
        held = f"what the devices hold at t = {run.t:g} s, without read noise"
    lines = [f"conductances: {held}; places of a tile that hold no weight are cut off"]
    if v_read is None:
        return (
            *lines,
            "unit-free power: x in the unit of the inputs, g in µS, r = 1 (Henwood, "
            "2024, equations 3.39-3.44, the amplifiers' squared); no converters",
        )
    volts = "the largest input that the DAC takes, without one the largest of the data"
    resistance = "the resistance at which the largest current makes v_read"
    if periphery.tia_resistance is not None:
        resistance = f"{periphery.tia_resistance:g} Ω"
    lines += [
        f"{v_read:g} V for {volts}; amplitudes, not pulse widths",
        f"TIAs: r·I², r = {resistance}; no bias currents",
        f"subtraction of a pair: {periphery.subtraction}",
        *periphery.sources(),
    ]
    for name, bits in (("DAC", "dac_bits"), ("ADC", "adc_bits")):
        without = [row.path for row in rows if getattr(row, bits) is None]
        if without:
            lines.append(f"no {name}, so that its part is 0: {', '.join(without)}")
    lines.append("not counted: memory, data movement, control, idle power")
    return tuple(lines)
