"""Files of NIR: their arrays, what readers make of them, and back again."""

import builtins

import keras
import numpy as np
import pytest
from keras import layers, ops

import hwa_keras
from hwa_keras.core.modes import hardware_mode
from hwa_keras.spiking import (
    ALIF,
    LIF,
    Frontend,
    LIFCell,
    SpikeCount,
    SynapticLIF,
    export_nir,
    from_nir,
)

pytestmark = pytest.mark.slow  # What differs between backends is tested elsewhere.

nir = pytest.importorskip("nir")

DELTA, TAU, DT = 1e-4, 64e-3, 8e-3
X = np.random.default_rng(2).normal(0.6, 1.0, (5, 40, 6)).astype("float32")
WIDE = keras.initializers.RandomNormal(0.3, 0.8, seed=1)


def chain(*stack, channels=6):
    return keras.Sequential([keras.Input((None, channels)), *stack])


def written(model, tmp_path, **options):
    path = tmp_path / "network.nir"
    lost = export_nir(model, path, **options)
    return nir.read(path), path, lost


def euler(graph, x):
    """The graph as a reader steps it, in float64: v ← v + δ/τ·(v_leak − v + r·I)."""
    edges = dict(graph.edges)
    signal, name = np.asarray(x, "float64"), "input"
    while (name := edges[name]) != "output":
        node = graph.nodes[name]
        if isinstance(node, nir.Scale):
            signal = signal * node.scale
        elif isinstance(node, (nir.Affine, nir.Linear)):
            signal = signal @ node.weight.T.astype("float64")
            signal = signal + getattr(node, "bias", 0.0)
        else:
            signal = _neurons(node, signal)
    return signal


def _neurons(node, currents):
    v, i = np.zeros(currents[:, 0].shape), np.zeros(currents[:, 0].shape)
    spikes = np.zeros(currents.shape)
    for t in range(currents.shape[1]):
        now = currents[:, t]
        if isinstance(node, nir.CubaLIF):
            i = i + DELTA / node.tau_syn * (-i + node.w_in * now)
            v = v + DELTA / node.tau_mem * (node.v_leak - v + node.r * i)
        elif isinstance(node, nir.IF):
            v = v + node.r * now
        else:
            v = v + DELTA / node.tau * (node.v_leak - v + node.r * now)
        spikes[:, t] = v > node.v_threshold
        v = np.where(spikes[:, t] > 0, node.v_reset, v)
    return spikes


def all_kinds():
    taus = [TAU, 2 * TAU, 0.5 * TAU, 0.1]
    return chain(
        Frontend(kernel_initializer=WIDE, name="diagonal"),
        LIF(tau=np.inf, dt=DT, threshold=2.0, name="sum"),
        layers.Dense(4, kernel_initializer=WIDE, name="affine"),
        LIF(tau=taus, dt=DT, threshold=[0.5, 1.0, 1.5, 1.2], name="leaky"),
        layers.Dropout(0.5),
        hwa_keras.layers.HWADense(
            3, kernel_initializer=WIDE, use_bias=False, name="linear",
            kernel_quantizer=hwa_keras.quantizers.Uniform(levels=16, scale=0.9),
        ),
        SynapticLIF(tau=TAU, tau_synapse=20e-3, dt=DT, threshold=0.8, name="synaptic"),
    )  # fmt: skip


def test_arrays_are_those_of_the_convention(tmp_path):
    model = all_kinds()
    model.get_layer("affine").bias.assign([0.1, -0.1, 0.2, 0.0])
    graph, _, lost = written(model, tmp_path)
    assert lost == ()
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert kinds == {
        "input": "Input", "diagonal": "Scale", "sum": "IF", "affine": "Affine",
        "leaky": "LIF", "linear": "Linear", "synaptic": "CubaLIF", "output": "Output",
    }  # fmt: skip
    order = [
        "input", "diagonal", "sum", "affine", "leaky", "linear", "synaptic", "output"
    ]  # fmt: skip
    assert sorted(graph.edges) == sorted(zip(order[:-1], order[1:], strict=True))
    leaky, synaptic = graph.nodes["leaky"], graph.nodes["synaptic"]
    beta = np.exp(-DT / np.array([TAU, 2 * TAU, 0.5 * TAU, 0.1]))
    np.testing.assert_allclose(leaky.tau, DELTA / (1 - beta), rtol=1e-12)
    np.testing.assert_allclose(leaky.r, leaky.tau / DELTA, rtol=1e-12)
    np.testing.assert_allclose(leaky.v_threshold, [0.5, 1.0, 1.5, 1.2], rtol=1e-6)
    np.testing.assert_array_equal(leaky.v_leak, np.zeros(4))
    np.testing.assert_array_equal(leaky.v_reset, np.zeros(4))
    alpha = np.full(3, np.exp(-DT / 20e-3))
    np.testing.assert_allclose(synaptic.tau_syn, DELTA / (1 - alpha), rtol=1e-12)
    np.testing.assert_allclose(synaptic.w_in, synaptic.tau_syn / DELTA, rtol=1e-12)
    np.testing.assert_allclose(synaptic.r, synaptic.tau_mem / DELTA, rtol=1e-12)
    assert all(a.shape == (3,) for a in (synaptic.v_threshold, synaptic.v_leak))
    summed = graph.nodes["sum"]
    np.testing.assert_array_equal(summed.r, np.ones(6))
    np.testing.assert_array_equal(summed.v_threshold, np.full(6, 2.0))
    affine, linear = graph.nodes["affine"], graph.nodes["linear"]
    kernel, bias = model.get_layer("affine").get_weights()
    np.testing.assert_array_equal(affine.weight, kernel.T)
    np.testing.assert_array_equal(affine.bias, bias)
    codes = linear.weight / 0.9 * 15
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)  # Quantized.
    scale = graph.nodes["diagonal"].scale
    np.testing.assert_array_equal(scale, model.get_layer("diagonal").get_weights()[0])


def test_a_reader_makes_the_same_spikes(tmp_path):
    model = all_kinds()
    graph, _, _ = written(model, tmp_path)
    spikes = ops.convert_to_numpy(model(X))
    assert 0.05 < spikes.mean() < 0.95
    np.testing.assert_array_equal(spikes, euler(graph, X))


def test_there_and_back_gives_equal_spikes(tmp_path):
    model = all_kinds()
    _, path, _ = written(model, tmp_path)
    for dt in (DELTA, DT):
        again = from_nir(path, dt=dt)
        assert [layer.name for layer in again.layers] == [
            "diagonal", "sum", "affine", "leaky", "linear", "synaptic"
        ]  # fmt: skip
        np.testing.assert_array_equal(
            ops.convert_to_numpy(model(X)), ops.convert_to_numpy(again(X))
        )
    tau = np.asarray(again.get_layer("leaky").tau)
    np.testing.assert_allclose(tau, [TAU, 2 * TAU, 0.5 * TAU, 0.1], rtol=1e-9)


def test_functional_and_nested_models_chips_and_learned_constants(tmp_path):
    inner = chain(layers.Dense(4, kernel_initializer=WIDE), LIF(tau=TAU, dt=DT))
    inputs = keras.Input((40, 6))
    neurons = LIF(tau=TAU, dt=DT, tau_noise=0.3, threshold_noise=0.2, learn_tau=True)
    outputs = neurons(
        hwa_keras.layers.HWADense(3, kernel_initializer=WIDE)(inner(inputs))
    )
    model = keras.Model(inputs, outputs)
    graph, path, _ = written(model, tmp_path)
    spikes = ops.convert_to_numpy(model(X))
    np.testing.assert_array_equal(spikes, euler(graph, X))
    np.testing.assert_array_equal(spikes, ops.convert_to_numpy(from_nir(path, DT)(X)))
    chip = hwa_keras.program(model, seed=3)
    graph, _, _ = written(chip, tmp_path)
    assert len(np.unique(graph.nodes[neurons.name].tau)) == 3
    with hardware_mode(read_noise="off", time=ops.cast(chip.t, "float32")):
        held = ops.convert_to_numpy(chip(X))
    assert (held != spikes).any()
    np.testing.assert_array_equal(held, euler(graph, X))


def test_what_nir_cannot_say_is_refused_or_listed(tmp_path):
    dense = layers.Dense(4, kernel_initializer=WIDE)
    for neurons, words in (
        (LIF(tau=TAU, dt=DT, reset="subtract"), "reset='subtract'"),
        (LIF(tau=TAU, dt=DT, reset="none"), "reset='none'"),
        (LIF(tau=TAU, dt=DT, floor=0.0), "floor=0"),
        (ALIF(tau=TAU, tau_adaptation=0.2, dt=DT), "adaptation"),
    ):
        model = chain(dense, neurons)
        with pytest.raises(ValueError, match=f"NIR cannot say all.*\n.*{words}"):
            written(model, tmp_path)
        assert not (tmp_path / "network.nir").exists()
        with pytest.warns(UserWarning, match=words):
            graph, path, lost = written(model, tmp_path, allow_approximate=True)
        assert len(lost) == 1 and words in lost[0]
        assert isinstance(graph.nodes[neurons.name], nir.LIF)
        path.unlink()
    counted = chain(dense, LIF(tau=TAU, dt=DT), SpikeCount(name="count"))
    with pytest.raises(ValueError, match="'count': the readout is left off"):
        written(counted, tmp_path)
    digital = hwa_keras.Hardware(adc=hwa_keras.circuits.ADC(4, 3.0))
    model = chain(hwa_keras.layers.HWADense(2, hardware=digital), LIF(tau=TAU, dt=DT))
    with pytest.raises(ValueError, match="converters"):
        written(model, tmp_path)


def test_no_node_at_all_is_an_error_that_names_the_layer(tmp_path):
    recurrent = chain(
        layers.RNN(LIFCell(4, tau=TAU, dt=DT), return_sequences=True, name="loop")
    )
    relu = chain(layers.Dense(2, activation="relu", name="bent"))
    mixed = chain(LIF(tau=[TAU, np.inf], dt=DT, name="mixed"), channels=2)
    for model, words in (
        (recurrent, "'loop' \\(RNN\\)"),
        (relu, "'bent' has the activation 'relu'"),
        (mixed, "'mixed' do not leak"),
        (chain(layers.LayerNormalization(name="norm")), "'norm'"),
    ):
        with pytest.raises(ValueError, match=words):
            written(model, tmp_path, allow_approximate=True)
    inputs = keras.Input((40, 6))
    beside = keras.Model(inputs, layers.Add(name="sum")([inputs, inputs]))
    with pytest.raises(ValueError, match="one chain"):
        written(beside, tmp_path)
    membrane = LIF(tau=TAU, dt=DT, return_membrane=True, name="both")(inputs)[1]
    with pytest.raises(ValueError, match="follows 'both' takes its output 1"):
        written(keras.Model(inputs, membrane), tmp_path)
    with pytest.raises(TypeError, match="takes a built Keras model"):
        export_nir(3, tmp_path / "x.nir")


def test_foreign_graphs(tmp_path):
    """Another scale of currents moves into the thresholds; the rest is refused."""
    tau, path = np.array([2e-3, 3e-3]), tmp_path / "foreign.nir"
    arrays = {"v_leak": np.zeros(2), "v_threshold": np.array([0.1, 0.2])}
    lif = nir.LIF(tau=tau, r=np.array([2.0, 3.0]), **arrays)
    graph = nir.NIRGraph.from_list(nir.Linear(np.eye(2, 6) * 2), lif)
    nir.write(path, graph)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(from_nir(path)(X)), euler(nir.read(path), X)
    )
    leak = nir.LIF(tau=tau, r=tau / DELTA, **{**arrays, "v_leak": np.ones(2)})
    fast = nir.LIF(tau=tau / 100, r=tau, **arrays)
    flat = nir.Flatten({"input": np.array([2])})
    inverse = nir.LIF(tau=tau, r=-tau, **arrays)
    for node, words in (
        (leak, "v_leak"), (fast, "longer than δ"), (inverse, "must be positive"),
        (nir.LI(tau=tau, r=tau, v_leak=np.zeros(2)), "type LI"), (flat, "Flatten"),
    ):  # fmt: skip
        nir.write(path, nir.NIRGraph.from_list(nir.Linear(np.eye(2, 6)), node))
        with pytest.raises(ValueError, match=words):
            from_nir(path)
    nodes = {
        "input": nir.Input({"input": np.array([2])}), "a": lif,
        "w": nir.Linear(np.eye(2)), "output": nir.Output({"output": np.array([2])}),
    }  # fmt: skip
    edges = [("input", "a"), ("a", "w"), ("w", "a"), ("a", "output")]
    nir.write(path, nir.NIRGraph(nodes, edges))
    with pytest.raises(ValueError, match="one chain of nodes"):
        from_nir(path)


def test_without_the_package_the_message_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "nir":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'hwa_keras\[nir\]'"):
        from_nir(tmp_path / "any.nir")
