"""Supernet: masks equal extraction, training by the sandwich rule, files."""

import keras
import numpy as np
import pytest
from keras import ops

import hwa_keras
from hwa_keras import backend
from hwa_keras.core.substitution import stateless
from hwa_keras.search import ArchitectureSpace, Stage, Supernet

RNG = np.random.default_rng(0)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def space(resolution=(12,), **settings):
    """Blocks of all kinds, small."""
    stages = (
        Stage("conv", (1, 2), (4, 6), kernel_size=(3, 5)),
        Stage("residual", (1, 2), (6, 8), (0.5, 1.0), (3, 5), strides=2),
        Stage("bottleneck", (1, 2), (8, 12), (0.25, 0.5), strides=2),
        Stage("mbconv", (1, 2), (8, 16), (1, 2), (3, 5)),
    )
    return ArchitectureSpace(stages, resolution, stem=6, classes=5, **settings)


def narrow(resolution=(12,), **settings):
    stages = (
        Stage("conv", 1, (4, 8), kernel_size=(3, 5), strides=2),
        Stage("residual", (1, 2), (8, 16), strides=2),
    )
    return ArchitectureSpace(stages, resolution, stem=4, classes=5, **settings)


def supernet(space):
    """A supernet whose normalizations shift and scale: masks before would show."""
    net = Supernet(space, seed=1)
    for layer in net.normalizations.values():
        for variable in layer.weights:
            variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
    return net


def images(count=4, size=12):
    return RNG.normal(size=(count, size, size, 3)).astype("float32")


def call(net, x):
    """The outputs by one compiled function of all variables."""

    def outputs(values, x):
        pairs = list(zip(net.variables, values, strict=True))
        return stateless(net, pairs, lambda: net(x))[0]

    if not hasattr(net, "traced_for_tests"):
        net.traced_for_tests = backend.traced(outputs)
    values = [variable.value for variable in net.variables]
    return ops.convert_to_numpy(net.traced_for_tests(values, x))


@pytest.mark.slow
def test_extracted_networks_equal_masked_ones():
    net, rng = supernet(space((12, 16))), np.random.default_rng(1)
    x = images(size=16)
    for config in (net.space.smallest, net.space.largest, net.sample(rng)):
        net.configure(config)
        assert net.config == net.space.decode(net.space.encode(config))
        model, masked = net.extract(config), call(net, x)
        plain = ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(masked, plain, atol=1e-6 * np.abs(plain).max())
        names = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
        assert names == list(np.array(net.space.layers)[net.space.active(config)])


@pytest.mark.slow
def test_pooling_behind_the_stem_is_extracted_too():
    net, x = supernet(narrow((24,), stem_strides=2, stem_pool=True)), images(size=24)
    net.configure(net.space.smallest)
    plain = net.extract(net.space.smallest)(x)
    np.testing.assert_allclose(net(x), plain, atol=1e-6)


@pytest.mark.slow
def test_extracted_networks_are_saved_with_their_resolution(tmp_path):
    net, x = supernet(narrow((12, 16))), images(size=16)
    model = net.extract(net.space.smallest)
    model.save(tmp_path / "subnet.keras")
    loaded = keras.models.load_model(tmp_path / "subnet.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.slow
def test_an_extracted_network_is_no_larger_than_it_must_be():
    net = supernet(space())
    model = net.extract(net.space.smallest)
    assert model.count_params() < net.count_params() / 2
    assert tuple(model.get_layer("stage0_block0_conv").kernel.shape) == (3, 3, 6, 4)
    found = ops.convert_to_numpy(model.get_layer("stage0_block0_conv").kernel)
    largest = ops.convert_to_numpy(net.products["stage0_block0_conv"].kernel)
    np.testing.assert_array_equal(found, largest[1:-1, 1:-1, :, :4])


@pytest.mark.slow
def test_gradients_reach_weights_that_are_there_alone():
    net, x = supernet(space()), images()
    config = {**net.space.smallest, "stage0.width": 6}
    net.configure(config)
    variables = net.trainable_variables

    def loss(values):
        pairs = list(zip(variables, values, strict=True))
        y, _, _ = stateless(net, pairs, lambda: net(x, training=True))
        return ops.sum(ops.square(y)), None

    values = [ops.convert_to_tensor(v.value) for v in variables]
    _, gradients = backend.value_and_gradient(loss, values)
    gradients = {
        v.path: ops.convert_to_numpy(g)
        for v, g in zip(variables, gradients, strict=True)
    }
    there = net.extract(config)
    for kernel in net.space.kernels:
        layer, normalization = net.layers_of(kernel.name)
        gradient = gradients[layer.kernel.path]
        if not kernel.is_active(config):
            assert not gradient.any()
            continue
        own = there.get_layer(kernel.name).kernel
        assert 0 < np.count_nonzero(gradient) <= np.prod(own.shape)
        outputs = kernel.outputs.at(config)
        if kernel.kind == "conv":
            assert not gradient[..., outputs:].any()
            assert not gradient[:, :, kernel.inputs.at(config) :].any()
            if kernel.size.at(config) < kernel.size.largest:
                assert not gradient[[0, -1]].any()
        if normalization is not None:
            assert not gradients[normalization.beta.path][outputs:].any()


def learnable(count=256):
    """Images whose class is a pattern, and the classes."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(5, 12, 12, 3))
    y = rng.integers(0, 5, size=count)
    return (patterns[y] + rng.normal(size=(count, 12, 12, 3))).astype("float32"), y


@pytest.mark.slow
def test_sandwich_training_teaches_all_networks():
    net = Supernet(narrow((8, 12)), seed=0)
    net.compile(
        keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"], jit_compile=False
    )
    x, y = learnable()
    history = net.fit(x, y, batch_size=32, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["accuracy"][-1] > 0.8
    rng = np.random.default_rng(2)
    for config in (net.space.smallest, net.sample(rng)):
        model = net.extract(config)
        hwa_keras.adapt_batchnorm(model, x, 0.0, 1, len(x))
        right = np.argmax(model.predict(x, verbose=0), -1) == y
        assert right.mean() > 0.6, config
    assert net.config == net.space.largest  # Training leaves the configuration.


@pytest.mark.slow
def test_statistics_move_once_a_step_and_with_the_largest_network():
    net = Supernet(narrow(), seed=0)
    net.compile(keras.optimizers.SGD(0.0), LOSS, jit_compile=False)
    x, y = learnable(32)
    alone = Supernet(narrow(), seed=0)
    net.configure(net.space.smallest)
    net.fit(x, y, batch_size=32, epochs=1, verbose=0)
    alone(x, training=True)
    for name, layer in net.normalizations.items():
        other = alone.normalizations[name]
        np.testing.assert_allclose(layer.moving_mean, other.moving_mean, atol=1e-6)
        np.testing.assert_allclose(
            layer.moving_variance, other.moving_variance, rtol=1e-5
        )


@pytest.mark.slow
def test_the_step_is_the_sum_of_the_gradients():
    """Against gradients of each network alone, the students' seed known."""
    net = Supernet(narrow(), seed=0, students=0)
    net.compile(keras.optimizers.SGD(1.0), LOSS, jit_compile=False)
    x, y = learnable(32)
    variables = net.trainable_variables
    before = [ops.convert_to_numpy(v) for v in variables]

    def forward(values, config):
        genes = ops.convert_to_tensor(net.space.encode(config), "int32")
        pairs = [*zip(variables, values, strict=True), (net.genes, genes)]
        return stateless(net, pairs, lambda: net(x, training=True))[0]

    values = [ops.convert_to_tensor(v.value) for v in variables]
    teacher = ops.softmax(forward(values, net.space.largest))
    teacher = ops.convert_to_tensor(ops.convert_to_numpy(teacher))

    def of_largest(values):
        return LOSS(y, forward(values, net.space.largest)), None

    def of_smallest(values):
        logits = ops.log_softmax(forward(values, net.space.smallest))
        return -ops.mean(ops.sum(teacher * logits, -1)), None

    _, first = backend.value_and_gradient(of_largest, values)
    _, second = backend.value_and_gradient(of_smallest, values)
    net.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
    for variable, old, g1, g2 in zip(variables, before, first, second, strict=True):
        expected = old - ops.convert_to_numpy(g1) - ops.convert_to_numpy(g2)
        np.testing.assert_allclose(variable, expected, atol=2e-5)


def test_batchnorm_statistics_of_a_configuration_are_those_of_the_extracted():
    net, x = supernet(narrow()), images(64)
    config = net.sample(np.random.default_rng(3))
    net.configure(config)
    model = net.extract(config)
    hwa_keras.adapt_batchnorm(net, x, 0.0, 1, 64)
    hwa_keras.adapt_batchnorm(model, x, 0.0, 1, 64)
    np.testing.assert_allclose(call(net, x), model(x), atol=2e-5)


def test_files_hold_configuration_weights_and_seeds(tmp_path):
    net = Supernet(narrow(), seed=0)
    net.configure({**net.space.smallest, "stage1.depth": 2})
    net.save(tmp_path / "supernet.keras")
    loaded = keras.models.load_model(tmp_path / "supernet.keras")
    assert loaded.space == net.space
    assert loaded.config == net.config != net.space.largest
    for own, other in zip(net.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(own, other, err_msg=own.path)
    state = ops.convert_to_numpy(net.seed_generator.state)
    np.testing.assert_array_equal(loaded.seed_generator.state, state)


def test_the_same_seed_gives_the_same_weights():
    first, second, other = (Supernet(narrow(), seed=seed) for seed in (1, 1, 2))
    kernels = [ops.convert_to_numpy(n.products["stem"].kernel) for n in (first, second)]
    np.testing.assert_array_equal(*kernels)
    assert not np.array_equal(kernels[0], other.products["stem"].kernel)


def test_supernets_say_what_is_wrong():
    with pytest.raises(TypeError, match="`space` of Supernet must be an Architecture"):
        Supernet("cifar")
    with pytest.raises(ValueError, match="`distillation` of Supernet must be a number"):
        Supernet(narrow(), distillation=2.0)
    with pytest.raises(ValueError, match="`students` of Supernet must be an integer"):
        Supernet(narrow(), students=-1)
    with pytest.raises(ValueError, match="'stage0.width' must be one of"):
        Supernet(narrow()).configure({**narrow().smallest, "stage0.width": 5})
