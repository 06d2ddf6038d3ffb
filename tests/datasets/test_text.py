"""Sentences and running text from text files."""

import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from hwa_keras import datasets

pytestmark = pytest.mark.slow  # Arrays of NumPy, the same on any backend.


def write(folder, **texts):
    """Text files of a folder, by the stem of their names."""
    folder.mkdir(parents=True)
    suffix = ".tsv" if folder.name == "sst2" else ".txt"
    for name, content in texts.items():
        (folder / f"{name}{suffix}").write_text(content, encoding="utf-8")


# --- SST-2


def test_sst2(data_dir):
    sst2 = datasets.load("sst2")
    assert (sst2.name, sst2.num_classes) == ("sst2", 2)
    parts = (sst2.train, sst2.validation, sst2.test)
    assert [len(x) for x, _ in parts] == [6920, 872, 1821]
    assert [int(y.sum()) for _, y in parts] == [3610, 444, 909]
    for x, y in parts:
        assert x.ndim == 1 and x.shape == y.shape and y.dtype == np.int64
        assert all(type(sentence) is str and sentence.isascii() for sentence in x)
        assert not any("\t" in sentence or "\n" in sentence for sentence in x)
    assert sst2.train[0][1].startswith("apparently reassembled from the cutting room")
    assert sst2.train[1][:3].tolist() == [1, 0, 0]
    x, y = datasets.load("sst2", "validation", data_dir=data_dir)
    assert np.array_equal(x, sst2.validation[0]) and x[0].endswith("of cliches")


def test_sst2_files(tmp_path):
    write(tmp_path / "sst2", train="a b\t1\nc , é\t0", dev="d\t0\n", test="e\t1\n")
    sst2 = datasets.load("sst2", data_dir=tmp_path)
    assert sst2.train[0].tolist() == ["a b", "c , é"]
    assert [y.tolist() for _, y in sst2[1:3]] == [[1, 0], [1]]
    assert sst2.validation[1].tolist() == [0]


def test_sst2_says_which_file_is_missing(tmp_path):
    write(tmp_path / "sst2", train="a b\t1\n")
    assert datasets.load("sst2", "train", data_dir=tmp_path)[1].tolist() == [1]
    with pytest.raises(
        FileNotFoundError, match="No dev.tsv in .*'validation'"
    ) as error:
        datasets.load("sst2", "validation", data_dir=tmp_path)
    assert f'-o "{tmp_path}/sst2/#1.tsv"' in str(error.value)


@pytest.mark.parametrize("line", ["no label", "a label of words\tgood", "another\t2"])
def test_sst2_says_which_line_is_damaged(line, tmp_path):
    write(tmp_path / "sst2", train=f"fine\t1\n{line}\n")
    with pytest.raises(ValueError, match="Line 2 of .*train.tsv is damaged") as error:
        datasets.load("sst2", "train", data_dir=tmp_path)
    assert repr(f"{line}\n") in str(error.value)


def test_sst2_that_is_nowhere_names_both_sources(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("sst2", data_dir=tmp_path)
    message = str(error.value)
    assert f"no folder {tmp_path}/sst2" in message and "curl" in message
    assert f"tfds.load('glue/sst2', data_dir='{tmp_path}')" in message
    # By the environment, text files and records have folders of their own.
    monkeypatch.setenv("HWA_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder") as error:
        datasets.load("sst2")
    assert f"no folder {tmp_path}/sst2" in str(error.value)
    assert f"data_dir='{tmp_path}/tfds'" in str(error.value)


# --- WikiText-2


def model_corpus(*paths):
    """The corpus of PyTorch's word_language_model, transcribed from its data.py."""
    word2idx, idx2word, found = {}, [], []
    for path in paths:
        with open(path, encoding="utf8") as lines:
            for line in lines:
                for word in line.split() + ["<eos>"]:
                    if word not in word2idx:
                        idx2word.append(word)
                        word2idx[word] = len(idx2word) - 1
    for path in paths:
        with open(path, encoding="utf8") as lines:
            ids = [word2idx[w] for line in lines for w in line.split() + ["<eos>"]]
        found.append(np.array(ids))
    return found, idx2word


def test_wikitext2(data_dir):
    text = datasets.load("wikitext2")
    assert isinstance(text, datasets.Text) and text.name == "wikitext2"
    assert text.validation.shape == (217646,) and text.test.shape == (245569,)
    assert text.validation.dtype == text.test.dtype == np.int32
    # 18,327 words and the end of a line.
    assert len(text.vocabulary) == len(set(text.vocabulary)) == 18328
    assert text.vocabulary[:5] == ("<eos>", "=", "Homarus", "gammarus", ",")
    unknown = text.vocabulary.index("<unk>")
    assert (text.validation == unknown).sum() == 11718
    assert (text.test == unknown).sum() == 15218
    files = [data_dir / "wikitext2" / f"{name}.txt" for name in ("valid", "test")]
    (validation, test), words = model_corpus(*files)
    assert np.array_equal(text.validation, validation)
    assert np.array_equal(text.test, test) and text.vocabulary == tuple(words)
    part = datasets.load("wikitext2", "test", data_dir=data_dir)
    assert np.array_equal(part, test)


def test_wikitext2_without_its_training_text(data_dir):
    if (data_dir / "wikitext2" / "train.txt").exists():
        pytest.skip("train.txt is there")
    assert datasets.load("wikitext2").train is None
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("wikitext2", "train")
    message = str(error.value)
    assert f"No train.txt in {data_dir / 'wikitext2'}" in message
    assert "There are 'validation' and 'test'" in message


def test_words_are_numbered_as_they_first_appear(tmp_path):
    write(
        tmp_path / "wikitext2", test="d a\n", valid="c\u00a0b\n", train=" \n b a b \n"
    )
    text = datasets.load("wikitext2", data_dir=tmp_path)
    assert text.vocabulary == ("<eos>", "b", "a", "c", "d")
    assert text.train.tolist() == [0, 1, 2, 1, 0]
    assert text.validation.tolist() == [3, 1, 0] and text.test.tolist() == [4, 2, 0]
    for split in ("train", "validation", "test"):
        part = datasets.load("wikitext2", split, data_dir=tmp_path)
        assert part.dtype == np.int32
        assert part.tolist() == getattr(text, split).tolist()
    counts = Counter(text.vocabulary[number] for number in text.train)
    assert counts == {"<eos>": 2, "b": 2, "a": 1}


def test_wikitext2_that_is_nowhere_says_where_it_comes_from(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("wikitext2", data_dir=tmp_path)
    message = str(error.value)
    assert f"no train.txt, valid.txt, test.txt in {tmp_path}/wikitext2" in message
    assert "github.com/pytorch/examples, word_language_model/data/wiki" in message
    assert "HWA_DATA_DIR" in message and not list(tmp_path.iterdir())
    monkeypatch.delenv("HWA_DATA_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match=r"in \$HWA_DATA_DIR/wikitext2"):
        datasets.load("wikitext2")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_command_puts_the_files_in_place(tmp_path):
    source, target = tmp_path / "a source" / "wikitext2", tmp_path / "a target"
    write(source, train="a\n", valid="b\n", test="c\n")
    with pytest.raises(FileNotFoundError) as error:
        datasets.load("wikitext2", data_dir=target)
    (command,) = [line for line in str(error.value).split("\n") if "curl" in line]
    start = command.index("https://")
    end = command.index("/{train")
    here = source.as_uri()
    command = command[:start] + here + command[end:]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert datasets.load("wikitext2", "test", data_dir=target).tolist() == [3, 1]
