"""`SilentLayers`: which layers are named, when, and how often."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras.spiking import LIF, SpikeCount
from hwa_keras.training import SilentLayers

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

X = np.ones((6, 10, 3), "float32")


def network(weights=(2.0, -1.0), **arguments):
    """Two layers of neurons, behind synapses all of which have one weight."""
    layers = [keras.Input(batch_shape=(arguments.pop("batch", None), 10, 3))]
    for name, weight in zip(("first", "second"), weights, strict=True):
        initializer = keras.initializers.Constant(weight)
        layers.append(keras.layers.Dense(3, kernel_initializer=initializer))
        layers.append(LIF(tau=20e-3, dt=5e-3, name=name, **arguments))
    model = keras.Sequential([*layers, SpikeCount()])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def warned(model, epochs=1, **arguments):
    callback = SilentLayers(X, **arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(
            X, np.zeros((6, 3)), 6, epochs=epochs, verbose=0, callbacks=[callback]
        )
    return [str(w.message) for w in caught if "silent" in str(w.message)]


def test_a_silent_layer_is_named_once():
    [message] = warned(network(), epochs=3)
    assert message.startswith("Epoch 1 has left 'second' silent: no neuron of it")
    [message] = warned(network((-1.0, 1.0)), batch_size=4)
    assert "'first' and 'second'" in message
    assert warned(network((2.0, 2.0)), epochs=2) == []


def test_a_layer_that_falls_silent_later_is_named_then():
    model = network((2.0, 2.0))

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                model.layers[2].kernel.assign(-ops.ones((3, 3)))

    with pytest.warns(UserWarning, match="Epoch 2 has left 'second' silent"):
        model.fit(
            X, np.zeros((6, 3)), 6, 3, verbose=0, callbacks=[Break(), SilentLayers(X)]
        )


def test_one_spike_of_one_example_is_enough():
    x = np.zeros_like(X)
    x[-1, -1] = 1.0
    model = network((2.0, 2.0))
    callback = SilentLayers(x, batch_size=4)
    model.fit(X, np.zeros((6, 3)), 6, verbose=0, callbacks=[callback])


def test_states_and_weights_stay_as_they_are():
    model = network((2.0, 2.0), batch=6, stateful=True)
    model.fit(X, np.zeros((6, 3)), 6, verbose=0)
    alone = [ops.convert_to_numpy(w.value) for w in model.weights]
    again = network((2.0, 2.0), batch=6, stateful=True)
    assert warned(again) == []
    for a, b in zip(alone, again.weights, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b.value))


def test_layers_can_be_chosen():
    assert warned(network(), layers=["first"]) == []
    model = network()
    assert len(warned(model, layers=[model.get_layer("second")])) == 1
    cell = hwa_keras.spiking.LIFCell(3, tau=20e-3, dt=5e-3)
    rnn = keras.layers.RNN(cell, return_sequences=True, name="loop")
    model = keras.Sequential([keras.Input((10, 3)), rnn, SpikeCount()])
    model.compile("sgd", "mse")
    cell.kernel.assign(-ops.ones(cell.kernel.shape))
    assert "'loop'" in warned(model)[0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`batch_size` of SilentLayers must be an int"):
        SilentLayers(X, batch_size=0)
    with pytest.raises(ValueError, match="no layer that.*'third'.*first"):
        warned(network(), layers=["third"])
    model = keras.Sequential([keras.Input((10, 3)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="SilentLayers found no spiking neurons"):
        model.fit(X, X, verbose=0, callbacks=[SilentLayers(X)])
