"""docs/extending.md: every object in at most 15 lines, saved and loaded elsewhere."""

import ast
import importlib.util
import sys

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from tests import fresh
from tests.docs.pages import blocks

MODULE = 'title="my_lab.py"'
MOST_LINES = 15


@pytest.fixture(scope="module")
def my_lab(tmp_path_factory):
    """The module that the page writes, imported as a user's."""
    path = tmp_path_factory.mktemp("user") / "my_lab.py"
    path.write_text("\n\n".join(blocks("docs/extending.md", MODULE)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("my_lab", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_lab"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["my_lab"]


def test_every_block_of_the_page_runs(my_lab):
    names = dict(vars(my_lab))
    for code in blocks("docs/extending.md"):
        if code not in blocks("docs/extending.md", MODULE):
            exec(compile(code, "extending", "exec"), names)
    chip, spikes = names["chip"], names["spikes"]
    assert isinstance(chip, hwa_keras.Chip)
    np.testing.assert_allclose(np.ravel(spikes)[:2], [0.0, 0.0])
    np.testing.assert_allclose(np.ravel(spikes)[2], 1.193, atol=1e-3)


def test_no_object_takes_more_than_15_lines():
    found = 0
    for code in blocks("docs/extending.md", MODULE):
        lines = [line for line in code.splitlines() if line.strip()]
        defined = [n for n in ast.parse(code).body if isinstance(n, ast.ClassDef)]
        found += len(defined)
        assert len(defined) <= 1
        assert len(lines) <= MOST_LINES, code
    assert found == 6  # A device, noise, quantizer, neuron, layer and its product.


def test_the_device_writes_with_its_error_and_decays(my_lab):
    weights = np.linspace(-1, 1, 10_000, dtype="float32").reshape(100, 100)
    device = hwa_keras.devices.get("ecram")
    state = device.program(weights, hwa_keras.random.seed_from(1))
    error = ops.convert_to_numpy(state["weights"]) - weights
    assert abs(error.std() - 0.02) < 5 * 0.02 / np.sqrt(2 * error.size)
    later = ops.convert_to_numpy(device.read(state, 1e8))
    np.testing.assert_allclose(later, (weights + error) * np.exp(-1), rtol=1e-5)


def test_the_noise_is_uniform(my_lab):
    weights = np.full((100, 100), 0.5, "float32")
    noise = hwa_keras.noise.get("uniform_error", scale=0.2)
    error = ops.convert_to_numpy(noise(weights, hwa_keras.random.seed_from(1))) - 0.5
    assert np.abs(error).max() <= 0.1 + 1e-6
    assert abs(error.std() - 0.1 / np.sqrt(3)) < 0.001


def test_the_quantizer_gives_powers_of_two(my_lab):
    quantizer = hwa_keras.quantizers.get("power_of_two", lowest=-2)
    x = np.array([-3.0, -0.3, 0.0, 0.01, 0.6, 1.0], "float32")
    found = ops.convert_to_numpy(quantizer(x))
    np.testing.assert_array_equal(found, [-4.0, -0.25, 0.0, 0.25, 0.5, 1.0])


def test_the_family_of_layers_is_computed_on_tiles(my_lab):
    layer = my_lab.TokenMixing()
    x = np.random.default_rng(0).normal(size=(2, 16, 3)).astype("float32")
    expected = ops.convert_to_numpy(layer(x))
    model = keras.Sequential([keras.Input((16, 3)), layer])
    array = hwa_keras.Hardware(tile=(8, 8), adc=lambda z: z)
    hwa_keras.to_hwa(model, hardware=array, verbose=0)
    [kernel] = hwa_keras.hardware_kernels(model)
    assert kernel.tiling.grid == (2, 2)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)
    hwa_keras.to_digital(model)
    assert type(layer) is my_lab.TokenMixing


def test_all_of_them_load_in_a_fresh_process_that_imports_the_module(my_lab, tmp_path):
    array = hwa_keras.Hardware(
        kernel_quantizer=hwa_keras.quantizers.get("power_of_two", lowest=-5),
        kernel_noise="uniform_error",
        adc=hwa_keras.circuits.ADC(bits=8, range=4.0),
        tile=(8, 8),
    )
    layers = [my_lab.TokenMixing(), keras.layers.Dense(5)]
    neurons = hwa_keras.spiking.get("graded", tau=20e-3, dt=5e-3)
    model = keras.Sequential([keras.Input((16, 3)), *layers, neurons])
    hwa_keras.to_hwa(model, hardware=array, verbose=0)
    device = my_lab.ECRAM(sigma=0.1, tau=1e4)
    chip = hwa_keras.program(model, device, seed=1, verbose=0)
    chip.t = 5e3
    x = np.random.default_rng(0).normal(size=(2, 16, 3)).astype("float32")
    for name, each in {"model": model, "chip": chip}.items():
        each.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", x)
    fresh.run(
        """
        import sys
        sys.path.insert(0, module_folder)
        import keras, numpy as np, my_lab
        x = np.load(f"{folder}/x.npy")
        for name in ("model", "chip"):
            loaded = keras.models.load_model(f"{folder}/{name}.keras")
            y = loaded(x, training=False)
            np.save(f"{folder}/{name}.npy", keras.ops.convert_to_numpy(y))
        """,
        folder=str(tmp_path),
        module_folder=str(my_lab.__spec__.origin).rsplit("/", 1)[0],
    )
    for name, each in {"model": model, "chip": chip}.items():
        expected = ops.convert_to_numpy(each(x, training=False))
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)
        assert np.abs(expected).max() > 0
