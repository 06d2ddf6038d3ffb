"""The energy of a product on a HERMES core, as estimated, beside what was measured.

    python -m benchmarks.array_energy

A core computes products of 8-bit inputs with a 256 × 256 matrix of PCM. In one-phase
mode the 64-core chip reaches 63.1 TOPS at 9.76 TOPS/W. With 2·256² operations a product
that is 133 ns and 13.4 nJ, for the whole chip, not its arrays alone; four phases take
52.9 nJ (2.48 TOPS/W), and the single core of 2021 took 12.5 nJ (10.5 TOPS/W).

Reference:
    - Khaddam-Aljameh et al., "HERMES-Core: a 1.59-TOPS/mm² PCM on 14-nm CMOS in-memory
      compute core using 300-ps/LSB linearized CCO-based ADCs", VLSI 2021, JSSC 2022.
    - Le Gallo et al., "A 64-core mixed-signal in-memory compute chip based on
      phase-change memory for deep neural network inference", Nature Electronics 2023.
"""

import keras
import numpy as np
from absl import app

from hwa_keras.circuits import ADC, DAC
from hwa_keras.crossbar import Crossbar
from hwa_keras.devices import Hermes
from hwa_keras.profile import Periphery, array_energy

SIZE = 256
OPERATIONS = 2 * SIZE**2
READ = 133e-9  # s
CORES, THROUGHPUT, EFFICIENCY = 64, 63.1e12, 9.76e12
PUBLISHED = OPERATIONS / EFFICIENCY  # J
DEVICES = (1, 2)  # In a unit cell, of 10.35 and 20.7 µS for the largest weight.
VOLTAGES = (0.1, 0.2)  # V: that of the chip is not in the abstracts


def estimate(devices, v_read, technology=14.0):
    """The `ArrayEnergy` of a product: weights and inputs uniform in their ranges."""
    model = keras.Sequential(
        [keras.Input((SIZE,)), keras.layers.Dense(SIZE, use_bias=False, name="core")]
    )
    generator = np.random.default_rng(0)
    model.layers[0].kernel.assign(generator.uniform(-1, 1, (SIZE, SIZE)))
    inputs = generator.uniform(-1, 1, (1000, SIZE)).astype("float32")
    crossbar = Crossbar(
        Hermes(devices),
        SIZE,
        SIZE,
        dac=DAC(8, range=1.0),
        adc=ADC(8, range=SIZE / 4),
        v_read=v_read,
        t_read=READ,
    )
    return array_energy(model, inputs, crossbar, Periphery(technology))


def main(_):
    seconds = OPERATIONS * CORES / THROUGHPUT
    print(f"published: {1e9 * PUBLISHED:.1f} nJ a product, {1e9 * seconds:.0f} ns\n")
    head = ("g of a cell, µS", "V", "nJ", "array's share", "of the published")
    print("".join(f"{name:>20}" for name in head))
    for devices in DEVICES:
        for v_read in VOLTAGES:
            found = estimate(devices, v_read)
            cells = (
                Hermes(devices).g_max,
                v_read,
                f"{1e9 * found.joules:.2f}",
                f"{found.parts['array'] / found.joules:.0%}",
                f"{found.joules / PUBLISHED:.0%}",
            )
            print("".join(f"{cell:>20}" for cell in cells))
    print()
    print(found)
    print(
        "\nNot as on the chip: weights and inputs are uniform; inputs are amplitudes, "
        "where the core has pulse\nwidths (∫V² grows with |x|, not x²: 1.5 times as "
        "much here); its regulators, calibration, LDPU and\nclocks are not estimated, "
        "and its oscillators are taken for good published ADCs."
    )


if __name__ == "__main__":
    app.run(main)
