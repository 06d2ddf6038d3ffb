"""Circuits at the ends of a crossbar: converters, saturation, noisy and narrow sums.

Each is a layer, to stand anywhere in a model, and a part of the hardware of a layer:
the DAC converts what goes into a crossbar, the ADC what comes out of it.
"""

from hwa_keras.circuits.accumulator import Accumulator
from hwa_keras.circuits.adc import ADC
from hwa_keras.circuits.dac import DAC
from hwa_keras.circuits.output_noise import OutputNoise
from hwa_keras.circuits.saturation import Saturation

__all__ = ["ADC", "DAC", "Accumulator", "OutputNoise", "Saturation"]
