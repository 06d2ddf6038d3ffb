import pytest

from hwa_keras.models import wide_resnet


def parameters(n, k, classes=10):
    """Trainable parameters of a WRN-(6n+4)-k, counted from the paper's table 1."""
    total, channels = 3 * 3 * 3 * 16, 16
    for filters in (16 * k, 32 * k, 64 * k):
        for block in range(n):
            total += 2 * channels + 9 * channels * filters
            total += 2 * filters + 9 * filters * filters
            if block == 0 and channels != filters:
                total += channels * filters
            channels = filters
    return total + 2 * channels + channels * classes + classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(16, 4, 2.7), (28, 10, 36.5), (40, 4, 8.9)]
)
def test_parameter_counts_are_the_published_ones(depth, width, millions):
    model = wide_resnet(depth, width)
    count = sum(int(w.numpy().size) for w in model.trainable_weights)
    assert count == parameters((depth - 4) // 6, width)
    assert round(count / 1e6, 1) == pytest.approx(millions, abs=0.06)


def test_depth_must_fit():
    with pytest.raises(ValueError, match="6n \\+ 4"):
        wide_resnet(depth=18)
