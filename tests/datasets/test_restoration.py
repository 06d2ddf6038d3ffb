"""Case and punctuation of running text: what is cut, how it is encoded."""

import numpy as np
import pytest

from hwa_keras import datasets
from hwa_keras.datasets import Text, restoration

RUNNING = (
    "<eos> = Title = <eos> The <unk> lobsters ( of Europe ) , well @-@ known , weigh "
    "2 @.@ 5 kg . It is Ann 's , isn 't it ? <eos> Señor lives here too . <eos>"
)


def text_of(running):
    words = running.split(" ")
    vocabulary = tuple(dict.fromkeys(words))
    numbers = np.array([vocabulary.index(word) for word in words])
    return Text("tiny", numbers, None, numbers, vocabulary)


def decoded_source(data, tokens):
    return "".join(data.source_characters[t - 3] for t in tokens if t)


def test_pieces_are_as_written_and_sources_are_bare():
    data = restoration(text_of(RUNNING), length=30)
    inputs, y = data.train
    assert [data.written(row) for row in y] == [
        "lobsters (of Europe),",
        "well-known, weigh 2.5 kg. It",
        "is Ann's, isn't it?",
    ]
    sources = [decoded_source(data, row) for row in inputs["source"]]
    assert sources[0] == "lobsters of europe"
    assert sources[1] == "wellknown weigh 25 kg it"
    assert sources[2] == "is anns isnt it"


def test_target_is_the_shifted_piece_between_start_and_end():
    data = restoration(text_of(RUNNING), length=30)
    inputs, y = data.test
    for target, row in zip(inputs["target"], y, strict=True):
        end = row.tolist().index(2)
        assert target[0] == 1
        np.testing.assert_array_equal(target[1 : end + 1], row[:end])
        assert not target[end + 1 :].any() and not row[end + 1 :].any()
    assert inputs["source"].shape[1] == 30 and y.shape[1] == 31
    source, target = data.vocabularies
    assert inputs["source"].max() < source and y.max() < target


def test_parts_that_are_missing_and_texts_without_pieces_are_told():
    text = text_of(RUNNING)
    with pytest.raises(ValueError, match="no part 'validation'.*'train', 'test'"):
        restoration(text, train="validation")
    with pytest.raises(ValueError, match="must be a hwa_keras.datasets.Text"):
        restoration(RUNNING)
    with pytest.raises(ValueError, match="`length` of restoration.* ≥ 8"):
        restoration(text, length=4)
    with pytest.raises(ValueError, match="No piece of 20 to 40 characters"):
        restoration(text_of("a <unk> b"), length=40)


def test_wikitext_gives_thousands_of_pieces(data_dir):
    text = datasets.load("wikitext2", data_dir=data_dir)
    data = restoration(text, length=32, train="validation", test="test")
    assert len(data.train[1]) > 10_000 and len(data.test[1]) > 10_000
