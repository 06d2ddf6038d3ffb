"""The networks of an architecture space, walked once for all who make something of it.

`walk` says which layers follow each other and leaves to a *builder* what a layer is:
the space notes their names and sizes, the supernet computes with masks, and an
extraction makes Keras layers.
"""

from dataclasses import dataclass
from typing import Any

from hwa_keras.search.sizes import Choice, Size

__all__ = ["BLOCKS", "Kernel", "walk"]

_SHAPES = ("expansion", "kernel_size")


@dataclass(frozen=True, eq=False)
class Kernel:
    """A layer with a kernel.

    Args:
        name: Name of the layer.
        kind: `"conv"`, `"depthwise"` or `"dense"`.
        inputs: `Size`, channels that come in.
        outputs: `Size`, channels that go out.
        size: `Size`, height and width of the kernel.
        strides: Integer.
        gate: Pair of the depth of its stage, a `Size`, and its place in there.
    """

    name: str
    kind: str
    inputs: Size
    outputs: Size
    size: Size
    strides: int = 1
    gate: Any = None

    def is_active(self, config):
        """Whether a network of this configuration has the layer."""
        return self.gate is None or self.gate[1] < self.gate[0].at(config)


@dataclass(frozen=True, eq=False)
class _Block:
    """Where a block stands, and what was chosen for it."""

    name: str
    inputs: Size
    outputs: Size
    size: Size
    expansion: Choice
    strides: int
    gate: Any

    def kernel(self, name, inputs, outputs, size=1, strides=1, kind="conv"):
        size = size if isinstance(size, Size) else Size.fixed(size)
        name = f"{self.name}_{name}"
        return Kernel(name, kind, inputs, outputs, size, strides, self.gate)

    @property
    def keeps_shape(self):
        return self.strides == 1 and (
            self.inputs is self.outputs
            or (self.inputs.is_fixed and self.outputs.is_fixed)
            and self.inputs.largest == self.outputs.largest
        )


def _conv(builder, x, block):
    kernel = block.kernel(
        "conv", block.inputs, block.outputs, block.size, block.strides
    )
    return builder.conv(kernel, x)


def _residual(builder, x, block):
    middle = block.outputs.times(block.expansion)
    first = block.kernel("conv0", block.inputs, middle, block.size, block.strides)
    second = block.kernel("conv1", middle, block.outputs, block.size)
    y = builder.conv(first, x)
    y = builder.conv(second, y, activate=False)
    return builder.add(y, _shortcut(builder, x, block), activate=True)


def _bottleneck(builder, x, block):
    middle = block.outputs.times(block.expansion)
    y = builder.conv(block.kernel("reduce", block.inputs, middle), x)
    y = builder.conv(block.kernel("conv", middle, middle, block.size, block.strides), y)
    y = builder.conv(block.kernel("expand", middle, block.outputs), y, activate=False)
    return builder.add(y, _shortcut(builder, x, block), activate=True)


def _mbconv(builder, x, block):
    middle = block.inputs.times(block.expansion)
    depthwise = block.kernel(
        "depthwise", middle, middle, block.size, block.strides, kind="depthwise"
    )
    y = builder.conv(block.kernel("expand", block.inputs, middle), x)
    y = builder.conv(depthwise, y)
    y = builder.conv(block.kernel("project", middle, block.outputs), y, activate=False)
    return builder.add(y, x, activate=False) if block.keeps_shape else y


def _shortcut(builder, x, block):
    if block.keeps_shape:
        return x
    kernel = block.kernel("shortcut", block.inputs, block.outputs, 1, block.strides)
    return builder.conv(kernel, x, activate=False)


BLOCKS = {
    "conv": _conv,
    "residual": _residual,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
}


def walk(space, builder, x):
    """Have a builder make the network of a space.

    Args:
        space: An `ArchitectureSpace`.
        builder: An object with the methods `conv(kernel, x, activate)`, which includes
            the normalization; `add(y, x, activate)`; `pool(x)`, to half the size;
            `optional(gate, function, x)`, a block that the depth may leave out; and
            `classify(kernel, x)`.
        x: What the first layer is given.

    Returns:
        What `classify` returned.
    """
    width = Size.fixed(space.stem)
    stem = Kernel(
        "stem",
        "conv",
        Size.fixed(space.channels),
        width,
        Size.fixed(space.stem_kernel_size),
        space.stem_strides,
    )
    x = builder.conv(stem, x)
    if space.stem_pool:
        x = builder.pool(x)
    for i, stage in enumerate(space.stages):
        outputs = Size.of(Choice(f"stage{i}.width", stage.width))
        depth = Size.of(Choice(f"stage{i}.depth", stage.depth))
        for j in range(max(stage.depth)):
            block = _block(f"stage{i}", stage, j, width, outputs, depth)

            def function(x, block=block, make=BLOCKS[stage.block]):
                return make(builder, x, block)

            if j >= min(stage.depth):
                x = builder.optional(block.gate, function, x)
            else:
                x = function(x)
            width = outputs
    one, classes = Size.fixed(1), Size.fixed(space.classes)
    return builder.classify(Kernel("classifier", "dense", width, classes, one), x)


def _block(name, stage, j, inputs, outputs, depth):
    expansion, size = (
        Choice(f"{name}.block{j}.{what}", getattr(stage, what)) for what in _SHAPES
    )
    return _Block(
        f"{name}_block{j}",
        inputs,
        outputs,
        Size.of(size),
        expansion,
        stage.strides if j == 0 else 1,
        (depth, j),
    )
