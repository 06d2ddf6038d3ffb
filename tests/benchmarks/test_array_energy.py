import numpy as np
import pytest

from benchmarks.array_energy import DEVICES, PUBLISHED, estimate

pytestmark = pytest.mark.slow  # Estimates, the same on any backend.


def test_the_published_energy_of_a_product():
    assert pytest.approx(13.4e-9, rel=0.005) == PUBLISHED


@pytest.mark.parametrize("devices", DEVICES)
def test_an_estimate_is_the_sum_of_its_parts(devices):
    found = estimate(devices, v_read=0.2)
    assert np.isfinite(found.joules) and found.joules > 0
    assert found.joules == pytest.approx(sum(found.parts.values()))
    assert found.watts == pytest.approx(found.joules / 133e-9)
