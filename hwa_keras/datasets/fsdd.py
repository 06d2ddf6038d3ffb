"""The Free Spoken Digit Dataset: the digits 0 to 9, spoken by six people, at 8 kHz."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from hwa_keras.datasets.source import Part, Source

__all__ = ["NAMES", "SAMPLE_RATE", "SPEAKERS", "fsdd_source"]

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
NAMES = ("fsdd", *(f"fsdd/{speaker}" for speaker in SPEAKERS))
SAMPLE_RATE = 8000
_SAMPLES = SAMPLE_RATE  # A second.
_TEST_TAKES = 5  # The official split: the first five recordings of a speaker and digit.
_FILE = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
_FETCH = "git clone --depth 1 https://github.com/Jakobovski/free-spoken-digit-dataset"


def fsdd_source(name: str, folder: Path) -> Source:
    """Spoken digits, by the official split or with one speaker left out.

    Args:
        name: One of `NAMES`: `"fsdd/theo"` tests on the clips of that speaker, and
            trains on those of the others.
        folder: Path of the folder that holds `recordings`.
    """
    speaker = name.partition("/")[2]
    return Source(("train", "test"), partial(_read, folder, speaker), 10)


def _read(folder: Path, speaker: str, split: str) -> Part:
    clips = sorted(
        (int(found[1]), found[2], int(found[3]), path)
        for path in (folder / "recordings").glob("*.wav")
        if (found := _FILE.fullmatch(path.name))
    )
    is_test = [who == speaker if speaker else n < _TEST_TAKES for _, who, n, _ in clips]
    wanted = split == "test"
    chosen = [c for c, test in zip(clips, is_test, strict=True) if test == wanted]
    if not chosen:
        raise FileNotFoundError(
            f"The data set 'fsdd' is not on this machine: no clips for the split "
            f"{split!r} in {folder / 'recordings'}. Fetch it with\n"
            f'    {_FETCH} "{folder}"\n'
            "or give the folder that holds `fsdd`: `data_dir=`, or the environment "
            "variable HWA_DATA_DIR."
        )
    x = np.zeros((len(chosen), _SAMPLES), "float32")
    for row, (*_, path) in enumerate(chosen):
        clip = _normalized(path)[:_SAMPLES]
        x[row, : len(clip)] = clip
    return x, np.array([digit for digit, *_ in chosen], "int64")


def _normalized(path: Path) -> np.ndarray:
    """A clip over its largest sample: speakers differ in loudness by a factor of 16."""
    import scipy.io.wavfile  # Slow to import, and of use here alone.

    try:
        rate, clip = scipy.io.wavfile.read(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error} Fetch it again.") from error
    if rate != SAMPLE_RATE or clip.dtype != np.int16 or clip.ndim != 1:
        raise ValueError(
            f"Clips of 'fsdd' are of {SAMPLE_RATE} Hz, 16 bits and one channel. "
            f"Received {path}: {rate} Hz, {clip.dtype}, shape {clip.shape}."
        )
    clip = clip.astype("float32")
    return clip / max(float(np.abs(clip).max(initial=0.0)), 1.0)
