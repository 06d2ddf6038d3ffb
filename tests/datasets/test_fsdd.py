"""The spoken digits: splits, speakers, lengths and loudness, and damaged files."""

import numpy as np
import pytest
import scipy.io.wavfile

from hwa_keras import datasets
from hwa_keras.datasets.fsdd import SPEAKERS

pytestmark = pytest.mark.slow  # Arrays of NumPy, the same on any backend.


def write(folder, name, clip, rate=8000):
    path = folder / "fsdd" / "recordings" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.wavfile.write(path, rate, clip)


def test_the_official_split(data_dir):
    fsdd = datasets.load("fsdd")
    assert (fsdd.name, fsdd.num_classes, fsdd.sample_rate) == ("fsdd", 10, 8000)
    for (x, y), count in ((fsdd.train, 2700), (fsdd.test, 300)):
        assert x.shape == (count, 8000) and x.dtype == np.float32
        assert y.dtype == np.int64
        assert np.bincount(y).tolist() == [count // 10] * 10
        np.testing.assert_array_equal(np.abs(x).max(1)[:50], 1.0)
    # The first test clip is the first recording of a zero, over its largest sample.
    path = data_dir / "fsdd" / "recordings" / "0_george_0.wav"
    _, clip = scipy.io.wavfile.read(path)
    clip = clip / np.abs(clip.astype("float64")).max()
    np.testing.assert_allclose(fsdd.test[0][0, : len(clip)], clip, rtol=1e-6)
    assert not fsdd.test[0][0, len(clip) :].any()


def test_one_speaker_left_out(data_dir):
    x, y = datasets.load("fsdd/theo", "test")
    assert x.shape == (500, 8000) and np.bincount(y).tolist() == [50] * 10
    x, y = datasets.load("fsdd/theo", "train")
    assert x.shape == (2500, 8000) and np.bincount(y).tolist() == [250] * 10


def test_clips_go_by_digit_speaker_and_take(tmp_path):
    rng = np.random.default_rng(1)
    takes = [0, 4, 5, 10]
    clips = {
        f"{digit}_{speaker}_{take}": rng.integers(-900, 900, length).astype("int16")
        for digit in (3, 0)
        for speaker in SPEAKERS[:2]
        for take, length in zip(takes, (700, 9000, 8000, 10), strict=True)
    }
    for name, clip in clips.items():
        write(tmp_path, name, clip)
    write(tmp_path, "0_george_11", np.zeros(20, "int16"))
    (tmp_path / "fsdd" / "recordings" / "notes.txt").write_text("no clip")

    def expected(chosen):
        for (digit, speaker, take), row, label in chosen:
            clip = clips[f"{digit}_{speaker}_{take}"].astype("float64")
            clip = (clip / np.abs(clip).max())[:8000]
            np.testing.assert_allclose(row[: len(clip)], clip, rtol=1e-6)
            assert not row[len(clip) :].any() and label == digit

    x, y = datasets.load("fsdd", "test", data_dir=tmp_path)
    keys = [(d, s, t) for d in (0, 3) for s in SPEAKERS[:2] for t in (0, 4)]
    expected(zip(keys, x, y, strict=True))
    x, y = datasets.load("fsdd", "train", data_dir=tmp_path)
    assert y.tolist() == [0] * 5 + [3] * 4 and not x[2].any()  # Silence stays it.
    x, y = datasets.load("fsdd/jackson", "test", data_dir=tmp_path)
    keys = [(d, "jackson", t) for d in (0, 3) for t in takes]
    expected(zip(keys, x, y, strict=True))


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="(?s)'fsdd' is not on this.*git clone"):
        datasets.load("fsdd", data_dir=tmp_path)
    with pytest.raises(ValueError, match="no such split.*'validation'.*'train'"):
        datasets.load("fsdd", "validation", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Unknown data.*'fsdd/anna'.*'fsdd/george'"):
        datasets.load("fsdd/anna", data_dir=tmp_path)
    write(tmp_path, "0_theo_0", np.ones(9, "int16"), rate=16000)
    with pytest.raises(ValueError, match="of 8000 Hz, 16 bits.*0_theo_0.*16000 Hz"):
        datasets.load("fsdd", "test", data_dir=tmp_path)
    write(tmp_path, "0_theo_0", np.ones((9, 2), "float32"))
    with pytest.raises(ValueError, match=r"one channel.*float32, shape \(9, 2\)"):
        datasets.load("fsdd", "test", data_dir=tmp_path)
    (tmp_path / "fsdd" / "recordings" / "0_theo_0.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="0_theo_0.wav is damaged"):
        datasets.load("fsdd", "test", data_dir=tmp_path)
