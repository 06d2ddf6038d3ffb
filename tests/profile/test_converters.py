import numpy as np
import pytest

from hwa_keras.profile import Periphery, adc_energy, schreier_energy, walden_energy

pytestmark = pytest.mark.slow  # Numbers, the same on any backend.

TABLE = {
    (8, 45): 3.2,
    (8, 32): 1.71,
    (8, 22): 0.85,
    (8, 14): 0.36,
    (6, 45): 2.0,
    (6, 32): 1.06,
    (6, 22): 0.53,
    (6, 14): 0.22,
}


@pytest.mark.parametrize("point", TABLE, ids=str)
def test_adcs_of_the_table(point):
    assert adc_energy(*point) == pytest.approx(TABLE[point] * 1e-12, rel=1e-9)


def fitted(bits, technology, rate=1e8):
    """The fit of Andrulis et al., arXiv:2404.06553, from its published coefficients."""
    fom = 213.7806687348118 - 2.8719030399529957 * np.log(rate)
    fom = min(fom, 128.3068287398817 + 3.2205115109348 * bits)
    sndr = 20 * bits * np.log10(2) + 10 * np.log10(1.5)
    log_factor = 26.0496215686518 - 1.4702022133784405
    log_factor += 1.8800369206815004 * np.log(technology)
    log_factor -= 2.8291256050594527 * np.log(bits)
    return 0.5 * 10 ** ((sndr - fom) / 10) * np.exp(log_factor) * 1e-12


@pytest.mark.parametrize("technology", [45, 40, 28, 16, 14])
def test_between_and_around_the_table_as_the_fit_it_is_from(technology):
    for bits, within in ((4, 0.1), (5, 0.1), (6, 0.05), (7, 0.05), (8, 0.05), (9, 0.1)):
        energy = adc_energy(bits, technology)
        assert energy == pytest.approx(fitted(bits, technology), rel=within)


def test_figures_of_merit():
    assert walden_energy(10, 5e-15) == pytest.approx(5.12e-12)
    assert walden_energy(9, 5e-15) / walden_energy(8, 5e-15) == pytest.approx(2)
    assert schreier_energy(9, 160) / schreier_energy(8, 160) == pytest.approx(4)
    # P = BW·10^((SNDR − FOM)/10), and two conversions in 1/BW.
    sndr, bandwidth = 6.0206 * 8 + 1.7609, 1e6
    watts = bandwidth * 10 ** ((sndr - 170) / 10)
    assert schreier_energy(8, 170) == pytest.approx(watts / (2 * bandwidth), rel=1e-4)


def test_energies_that_are_given():
    given = Periphery(adc=1e-12, dac=lambda bits: walden_energy(bits, 2e-15))
    assert given.of_adc(8) == given.of_adc(4) == 1e-12
    assert given.of_dac(4) == pytest.approx(3.2e-14)
    assert Periphery(technology=7, adc=1e-13).of_adc(8) == 1e-13
    assert given.sources()[0] == "ADCs: as given"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: adc_energy(0), "`bits` of adc_energy"),
        (lambda: adc_energy(17), "`bits` of adc_energy"),
        (lambda: adc_energy(8, 7), "from 14 to 45 nm"),
        (lambda: Periphery(technology=65), "from 14 to 45 nm"),
        (lambda: walden_energy(8, 0), "`fom` of walden_energy"),
        (lambda: schreier_energy(-1, 160), "`bits` of schreier_energy"),
        (lambda: Periphery(tia_resistance=-1.0), "`tia_resistance` of Periphery"),
        (lambda: Periphery(addition=-1.0), "`addition` of Periphery"),
        (lambda: Periphery(subtraction="both"), "`subtraction` of Periphery"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
