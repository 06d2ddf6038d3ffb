"""What converters and output noise add to a summary."""

import keras
import pytest
from keras import layers

import hwa_keras
from hwa_keras import circuits, quantizers

pytestmark = pytest.mark.slow  # Counts, the same on any backend.


def test_converters_tell_the_bits_of_inputs_and_a_learned_range_is_one_parameter():
    stack = [layers.Conv2D(4, 3), layers.Flatten()]
    plain = keras.Sequential([keras.Input((6, 6, 2)), *stack])
    hardware = hwa_keras.Hardware(
        kernel_quantizer=quantizers.Uniform(levels=8),
        kernel_noise="programming_noise",
        dac=circuits.DAC(6, range="learned"),
        adc=circuits.ADC(8, range="calibrated"),
        output_noise=circuits.OutputNoise(0.1),
        tile=(10, 3),
    )
    model = hwa_keras.to_hwa(plain, hardware=hardware, verbose=0)
    found = hwa_keras.summary(model, verbose=0)
    conv, flatten = found.layers
    # One learned range of the inputs, one calibrated of each of 2 · 2 tiles.
    assert conv.params == {4: 72, 32: 4 + 1 + 4}
    assert (conv.macs, conv.input_precision) == ({6: 16 * 72}, 6)
    assert conv.noise == "ProgrammingNoise, OutputNoise (output)"
    assert (flatten.params, flatten.macs) == ({}, {})
