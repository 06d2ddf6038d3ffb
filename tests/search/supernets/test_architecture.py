"""ArchitectureSpace: choices, configurations, sizes, errors."""

import itertools
import json

import keras
import numpy as np
import pytest

from hwa_keras.search import ArchitectureSpace, Stage, spaces

SPACE = ArchitectureSpace(
    (
        Stage("conv", (1, 2), (4, 6), kernel_size=(3, 5)),
        Stage("residual", (2, 1), (6, 8), (0.5, 1.0), strides=2),
    ),
    resolution=(8, 12),
    classes=5,
)


def test_options_are_ascending_and_single_ones_are_no_choices():
    names = [choice.name for choice in SPACE.choices]
    assert names == [
        "resolution",
        "stage0.depth",
        "stage0.width",
        "stage0.block0.kernel_size",
        "stage0.block1.kernel_size",
        "stage1.depth",
        "stage1.width",
        "stage1.block0.expansion",
        "stage1.block1.expansion",
    ]
    assert all(c.options == tuple(sorted(c.options)) for c in SPACE.choices)


def test_layers_are_those_of_the_largest_network_in_order():
    assert SPACE.layers == (
        "stem",
        "stage0_block0_conv",
        "stage0_block1_conv",
        "stage1_block0_conv0",
        "stage1_block0_conv1",
        "stage1_block0_shortcut",
        "stage1_block1_conv0",
        "stage1_block1_conv1",
        "classifier",
    )
    active = SPACE.active({**SPACE.largest, "stage1.depth": 1})
    assert [n for n, a in zip(SPACE.layers, active, strict=True) if not a] == [
        "stage1_block1_conv0",
        "stage1_block1_conv1",
    ]
    assert SPACE.active(SPACE.largest).all()


def test_decode_inverts_encode_and_configurations_are_json():
    rng = np.random.default_rng(0)
    for _ in range(50):
        config = SPACE.sample(rng)
        assert json.loads(json.dumps(config)) == config
        assert SPACE.decode(SPACE.encode(config)) == config
    assert SPACE.decode(np.zeros(9, int)) == SPACE.smallest
    assert SPACE.encode(SPACE.largest).tolist() == [1] * 9


def test_choices_of_blocks_left_out_take_their_first_option():
    config = SPACE.decode(SPACE.encode({**SPACE.largest, "stage0.depth": 1}))
    assert config["stage0.block1.kernel_size"] == 3
    assert config["stage0.block0.kernel_size"] == 5


def test_count_is_the_number_of_different_configurations():
    grid = itertools.product(*(range(len(c.options)) for c in SPACE.choices))
    found = {json.dumps(SPACE.decode(indices)) for indices in grid}
    assert len(found) == SPACE.count


def test_samples_take_every_option_equally_often():
    rng = np.random.default_rng(0)
    widths = [SPACE.sample(rng)["stage1.width"] for _ in range(2000)]
    assert abs(np.mean([w == 8 for w in widths]) - 0.5) < 5 * 0.5 / 2000**0.5


def test_sizes_of_layers_follow_the_configuration():
    kernels = {kernel.name: kernel for kernel in SPACE.kernels}
    config = {**SPACE.largest, "stage1.width": 6, "stage1.block0.expansion": 0.5}
    first = kernels["stage1_block0_conv0"]
    assert (first.inputs.at(config), first.outputs.at(config)) == (6, 3)
    assert (first.inputs.largest, first.outputs.largest) == (6, 8)


def test_config_round_trip():
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(SPACE)))
    assert keras.saving.deserialize_keras_object(config) == SPACE


@pytest.mark.parametrize("name", spaces.__all__)
def test_ready_spaces_have_valid_samples(name):
    space = getattr(spaces, name)()
    config = space.sample(np.random.default_rng(0))
    assert space.active(config).sum() <= len(space.layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": ()}, "`depth` of Stage must be integers ≥ 1 to choose from, at"),
        ({"depth": (0, 1)}, "`depth` of Stage must be integers ≥ 1"),
        ({"width": (8.5,)}, "`width` of Stage must be integers ≥ 1"),
        ({"expansion": (0.0,)}, "`expansion` of Stage must be numbers > 0"),
        ({"kernel_size": (2, 3)}, "`kernel_size` of Stage must be odd"),
        ({"kernel_size": (1, 3)}, "1 stands alone"),
        ({"block": "dense"}, "`block` of Stage must be one of 'conv', 'residual'"),
        ({"block": "conv", "expansion": 0.5}, "leave `expansion` out"),
        ({"strides": 0}, "`strides` of Stage must be an integer ≥ 1"),
    ],
)
def test_stages_say_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{"block": "residual", "depth": 1, "width": 8, **settings})


def test_spaces_say_what_is_wrong():
    stage = Stage("conv", 1, 4, strides=2)
    with pytest.raises(ValueError, match="at least one. Received: stages=()"):
        ArchitectureSpace(())
    with pytest.raises(ValueError, match="'stage2_block0_conv' has strides of 2, and"):
        ArchitectureSpace((stage,) * 3, resolution=(4, 32))
    with pytest.raises(ValueError, match="`resolution` of ArchitectureSpace must be"):
        ArchitectureSpace((stage,), resolution=())
    with pytest.raises(ValueError, match="`stem_pool` halves what is left of an image"):
        ArchitectureSpace((stage,), resolution=1, stem_kernel_size=1, stem_pool=True)
    with pytest.raises(ValueError, match="`stem_kernel_size` of .* must be odd"):
        ArchitectureSpace((stage,), stem_kernel_size=4)


def test_configurations_say_what_is_wrong():
    with pytest.raises(ValueError, match="a dictionary with the keys resolution, st"):
        SPACE.encode({"stage0.depth": 1})
    with pytest.raises(ValueError, match=r"'stage0.depth' must be one of \(1, 2\)"):
        SPACE.encode({**SPACE.smallest, "stage0.depth": 3})
    with pytest.raises(ValueError, match="There are 9 indices of options"):
        SPACE.decode([2] * 9)
