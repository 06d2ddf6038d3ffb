"""A language model whose kernels are split over two devices, on JAX."""

import numpy as np
import pytest

from tests import fresh

pytestmark = pytest.mark.slow

PARALLEL = """
    import os
    os.environ.update(
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    import keras, keras_hub, numpy as np
    import hwa_keras

    def run():
        keras.utils.set_random_seed(0)
        backbone = keras_hub.models.LlamaBackbone(
            vocabulary_size=32, num_layers=1, num_query_heads=4,
            num_key_value_heads=2, hidden_dim=16, intermediate_dim=16,
        )
        model = keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)
        y = np.arange(1, 17).reshape(2, 8)
        x = {"token_ids": y, "padding_mask": np.ones_like(y)}
        plain = np.array(model(x, training=False))
        hwa_keras.to_hwa(model, kernel_noise="programming_noise", seed=0, verbose=0)
        same = np.array_equal(np.array(model(x, training=False)), plain)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=[], weighted_metrics=[])
        step = model.train_on_batch(x, y)
        chip = hwa_keras.program(model, "pcm", seed=1, read_noise="off", verbose=0)
        chip.t = 3.15e7
        aged = np.array(chip(x, training=False))
        values = [k.variable.value for k in hwa_keras.hardware_kernels(model)]
        shards = [v.addressable_shards[0].data.size / v.size for v in values]
        print("found", same, float(np.ravel(step)[0]), *np.ravel(aged)[:3], *shards)

    run()
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*(query|key|value).kernel$"] = (None, None, "model")
    layout[".*attention_output.kernel$"] = (None, None, "model")
    layout[".*feedforward_(gate|intermediate)_dense.kernel$"] = (None, "model")
    layout[".*feedforward_output_dense.kernel$"] = ("model", None)
    layout[".*reverse_embeddings$"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    run()
"""


def test_a_model_split_over_two_devices_converts_trains_and_is_programmed():
    """On one device and on two: the same noise, the same loss, the same chip."""
    pytest.importorskip("jax")
    pytest.importorskip("keras_hub")
    output = fresh.run_bare(PARALLEL)
    lines = [x.split()[1:] for x in output.splitlines() if x.startswith("found")]
    assert [line[0] for line in lines] == ["True", "True"]
    one, two = ([float(v) for v in line[1:]] for line in lines)
    np.testing.assert_allclose(two[:4], one[:4], rtol=1e-3, atol=1e-4)
    assert set(one[4:]) == {1.0} and set(two[4:]) == {0.5}
