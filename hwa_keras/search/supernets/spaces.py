"""Architecture spaces that are ready to be trained."""

from hwa_keras.search.supernets.architecture import ArchitectureSpace, Stage

__all__ = ["cifar_resnet", "ofa_resnet50", "small_cnn"]


def small_cnn(
    resolution: tuple[int, ...] = (28,), channels: int = 1, classes: int = 10
) -> ArchitectureSpace:
    """Plain convolutions for MNIST, trained in a minute.

    Args:
        resolution: As of `ArchitectureSpace`. Defaults to `(28,)`.
        channels: Channels of the images. Defaults to `1`.
        classes: Number of logits. Defaults to `10`.

    Returns:
        An `ArchitectureSpace`.

    Example:
        >>> hwa_keras.search.spaces.small_cnn().count
        96
    """
    stages = (
        Stage("conv", depth=1, width=(8, 16), kernel_size=(3, 5), strides=2),
        Stage("conv", depth=(1, 2), width=(16, 24, 32), kernel_size=3, strides=2),
        Stage("conv", depth=1, width=(16, 32), kernel_size=(3, 5), strides=2),
    )
    return ArchitectureSpace(
        stages, resolution, stem=8, stem_strides=1, channels=channels, classes=classes
    )


def cifar_resnet(
    resolution: tuple[int, ...] = (24, 32), channels: int = 3, classes: int = 10
) -> ArchitectureSpace:
    """Residual blocks for CIFAR, small enough to train on two cores.

    Args:
        resolution: As of `ArchitectureSpace`. Defaults to `(24, 32)`.
        channels: Channels of the images. Defaults to `3`.
        classes: Number of logits. Defaults to `10`.

    Returns:
        An `ArchitectureSpace`.

    Example:
        >>> space = hwa_keras.search.spaces.cifar_resnet()
        >>> len(space.choices), len(space.layers)
        (13, 17)
    """
    expansion, size = (0.5, 1.0), (3,)
    stages = tuple(
        Stage("residual", (1, 2), width, expansion, size, strides)
        for width, strides in (((8, 12, 16), 1), ((16, 24, 32), 2), ((32, 48, 64), 2))
    )
    return ArchitectureSpace(
        stages, resolution, 16, stem_strides=2, channels=channels, classes=classes
    )


def ofa_resnet50(
    resolution: tuple[int, ...] = (128, 160, 192, 224),
    channels: int = 3,
    classes: int = 1000,
) -> ArchitectureSpace:
    """Bottleneck blocks with the choices of Once-for-all's ResNet50.

    Depths up to two blocks more than the fewest, widths of 0.65, 0.8 and 1 times those
    of ResNet50, expansions of 0.2, 0.25 and 0.35. Unlike there the stem is one
    convolution of fixed width, and shortcuts are strided convolutions.

    Args:
        resolution: As of `ArchitectureSpace`. Defaults to `(128, 160, 192, 224)`.
        channels: Channels of the images. Defaults to `3`.
        classes: Number of logits. Defaults to `1000`.

    Returns:
        An `ArchitectureSpace`.

    Example:
        >>> space = hwa_keras.search.spaces.ofa_resnet50()
        >>> len(space.layers)
        60

    Reference:
        - H. Cai et al., 2020, arXiv:1908.09791.
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, chapter 6.
    """
    depths = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    stages = tuple(
        Stage(
            "bottleneck",
            depth,
            tuple(8 * round(share * width / 8) for share in (0.65, 0.8, 1.0)),
            (0.2, 0.25, 0.35),
            strides=1 if i == 0 else 2,
        )
        for i, (depth, width) in enumerate(
            zip(depths, (256, 512, 1024, 2048), strict=True)
        )
    )
    return ArchitectureSpace(
        stages,
        resolution,
        stem=64,
        stem_kernel_size=7,
        stem_strides=2,
        stem_pool=True,
        channels=channels,
        classes=classes,
    )
