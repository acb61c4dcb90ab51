from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.corpora import phrases
from speechrnn.corpora.phrases import Phrase
from speechrnn.errors import DataError

QUICKSTART = Path(__file__).parent.parent / "pipelines" / "quickstart_phrases.py"

texts = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20
).filter(lambda text: text == " ".join(text.split()) and not text.startswith("#"))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            Phrase, texts, st.sampled_from(["", *phrases.SPLITS]), st.sampled_from(["", "letters"])
        ),
        min_size=1,
    )
)
def test_a_written_list_is_read_back_in_any_script(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("phrases") / "phrases.tsv"
    phrases.write(path, written)
    assert phrases.read(path) == written


def test_comments_and_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "phrases.txt"
    path.write_text("\ufeff# lamps\n\n  turn  it on \nturn it off\ttest\n", encoding="utf-8")
    assert phrases.read(path) == [Phrase("turn it on"), Phrase("turn it off", "test")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"hello\ttrian\n", "phrases.tsv:1: the split is 'trian'"),
        (b"ok\n\ttest\n", "phrases.tsv:2: the phrase is empty"),
        (b"a\ttest\t../b\n", "the group is '../b'"),
        (b"a\ttest\tb\tc\n", "more than three columns"),
        (b"# nothing\n", "holds no phrase"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "cannot read the phrase list"),
    ],
)
def test_a_bad_list_is_refused_by_line_and_fault(tmp_path, content, named):
    path = tmp_path / "phrases.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        phrases.read(path)
    assert named in str(error.value)


def test_the_hash_tells_lists_apart():
    one = [Phrase("a"), Phrase("b", "test")]
    assert phrases.sha256(one) == phrases.sha256(list(one))
    for other in (one[::-1], [Phrase("a"), Phrase("b", "dev")], [Phrase("a"), Phrase("b")]):
        assert phrases.sha256(other) != phrases.sha256(one)


@pytest.fixture(scope="module")
def quickstart():
    return runpy.run_path(str(QUICKSTART))


def test_quickstart_holds_out_digit_and_letter_strings(quickstart):
    texts = {
        (group, split): [
            p.text for p in quickstart["phrases"](3) if (p.group, p.split) == (group, split)
        ]
        for group in ("digits", "letters", "commands")
        for split in phrases.SPLITS
    }
    for group in ("digits", "letters"):
        everything = [text for split in phrases.SPLITS for text in texts[group, split]]
        assert len(set(everything)) == len(everything)
    assert set(texts["commands", "train"]) == set(texts["commands", "test"])
    assert set(texts["commands", "train"]) == set(texts["commands", "dev"])


def test_quickstart_strings_have_their_lengths_and_symbols(quickstart):
    for phrase in quickstart["phrases"]():
        words = phrase.text.split(" ")
        if phrase.group == "digits":
            assert 2 <= len(words) <= 6
            assert set(words) <= set(quickstart["DIGITS"])
        if phrase.group == "letters":
            assert 3 <= len(words) <= 7
            assert all(len(word) == 1 and "a" <= word <= "z" for word in words)


def test_quickstart_trains_every_symbol_often(quickstart):
    train = [p for p in quickstart["phrases"]() if p.split == "train"]
    for group, symbols in (("digits", 10), ("letters", 26)):
        counts = Counter(" ".join(p.text for p in train if p.group == group).split())
        # Spelled words lean to vowels; the random strings give the rare letters their share.
        assert len(counts) == symbols
        assert min(counts.values()) > 0.5 * counts.total() / symbols


def test_quickstart_is_a_function_of_its_seed(quickstart):
    assert quickstart["phrases"](1) == quickstart["phrases"](1)
    assert quickstart["phrases"](1) != quickstart["phrases"](2)
