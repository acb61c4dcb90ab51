"""N-gram models: their numbers beside KenLM's, what holds for any text, and the command `lm`."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speechrnn.corpora import manifest
from speechrnn.corpora import sentences as sentence_files
from speechrnn.decoding.arpa import read_arpa, write_arpa
from speechrnn.decoding.kneser_ney import FALLBACK, estimate
from speechrnn.decoding.ngram import CHARACTER_SPACE, SPECIALS, characters
from speechrnn.errors import DataError, ModelError, TranscriptError, UsageError
from speechrnn.specs import TextRules
from speechrnn.text import normalise

FIXTURES = Path(__file__).parent / "data" / "lm"
QUERY = json.loads((FIXTURES / "query.json").read_text())
# Of each fixture, how it was made; see its README.
MADE = {
    "lamps": {"order": 3},
    "zipf": {"order": 3, "prune": (0, 0, 1)},
    "zipf.common": {"order": 3, "min_count": 4},
    "letters": {"order": 4},
}

words = st.sampled_from([*"abcdef", "é", "ab"])
sentences = st.lists(words, max_size=6)
texts = st.lists(sentences, min_size=1, max_size=12).filter(any)
orders = st.integers(1, 4)


def lines(name):
    return [line.split() for line in (FIXTURES / name).read_text("utf-8").splitlines()]


def text_of(fixture):
    return lines(f"{fixture.split('.')[0]}.txt")


def held_out_of(fixture):
    return lines(f"{fixture.split('.')[0]}.held_out.txt")


def listed(path):
    """An ARPA file -> {n-gram: (log10 probability, backoff)}, read by hand."""
    found = {}
    for line in Path(path).read_text("utf-8").split("\n"):
        fields = line.split("\t")
        if len(fields) > 1:
            found[tuple(fields[1].split(" "))] = (float(fields[0]), float([*fields, 0][2]))
    return found


def backed_off(table, context, word):
    """log10 p(word | context) by the definition of an ARPA file, a recursion."""
    if (*context, word) in table:
        return table[(*context, word)][0]
    backoff = table.get(tuple(context), (0, 0))[1]
    return backoff + backed_off(table, context[1:], word)


# Beside KenLM


@pytest.mark.parametrize("name", MADE)
def test_every_ngram_has_the_numbers_of_lmplz(name, tmp_path):
    write_arpa(estimate(text_of(name), **MADE[name]), tmp_path / "ours.arpa")
    ours, theirs = listed(tmp_path / "ours.arpa"), listed(FIXTURES / f"{name}.arpa")
    assert ours.keys() == theirs.keys()
    # lmplz computes in float32 and prints seven digits
    np.testing.assert_allclose([*ours.values()], [theirs[n] for n in ours], atol=3e-6)


@pytest.mark.parametrize("name", MADE)
def test_perplexities_are_those_of_kenlms_query(name):
    expected = QUERY[name]
    for model in (estimate(text_of(name), **MADE[name]), read_arpa(FIXTURES / f"{name}.arpa")):
        found = model.perplexity(held_out_of(name))
        assert (found.unknown, found.tokens) == tuple(expected[2:])
        assert found.sentences == len(held_out_of(name))
        # float32 logarithms: a promise is 1e-4
        assert found.perplexity == pytest.approx(expected[0], rel=1e-6)
        assert found.perplexity_without_unknown == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize("corpus", ["an4", "librispeech"])
def test_models_of_real_transcripts_have_the_perplexity_of_lmplzs(corpus):
    folder = os.environ.get("SPEECHRNN_DATA")
    if folder is None or not (path := Path(folder) / corpus / "manifest.tsv").is_file():
        pytest.skip(f"SPEECHRNN_DATA names no folder with {corpus}/manifest.tsv")
    split = {"train": [], "dev": []}
    for utterance in manifest.read(path):
        split[utterance.split].append(normalise(utterance.text, TextRules()).split())
    found = estimate(split["train"]).perplexity(split["dev"])
    assert (found.unknown, found.tokens) == tuple(QUERY[corpus][2:])
    # as promised; the order of the vocabulary moves lmplz's own figure by some 1e-5
    assert found.perplexity == pytest.approx(QUERY[corpus][0], rel=1e-4)
    assert found.perplexity_without_unknown == pytest.approx(QUERY[corpus][1], rel=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_kenlm_reads_our_file_and_scores_as_we_do(name, tmp_path):
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm", reason="flashlight-text")
    from flashlight.lib.text.dictionary import Dictionary

    model = estimate(text_of(name), **MADE[name])
    write_arpa(model, tmp_path / "ours.arpa")
    dictionary = Dictionary()
    for word in model.words:
        dictionary.add_entry(word)
    dictionary.set_default_index(0)
    theirs = kenlm.KenLM(str(tmp_path / "ours.arpa"), dictionary)

    def score(sentence):
        state, total = theirs.start(False), 0.0
        for word in sentence:
            state, log_prob = theirs.score(state, dictionary.get_index(word))
            total += log_prob
        return total + theirs.finish(state)[1]

    for sentence in held_out_of(name):
        assert model.score(sentence) == pytest.approx(score(sentence), abs=1e-5)  # float32 sums


def test_lmplz_itself_agrees_where_it_is_installed(tmp_path):
    if shutil.which("lmplz") is None:
        pytest.skip("lmplz is not installed; its files are in tests/data/lm")
    with (FIXTURES / "zipf.txt").open() as text, (tmp_path / "theirs.arpa").open("w") as out:
        call = ["lmplz", "-o", "5", "-S", "5%", "--discount_fallback", "-T", str(tmp_path)]
        subprocess.run(call, stdin=text, stdout=out, stderr=subprocess.DEVNULL, check=True)
    write_arpa(estimate(text_of("zipf"), 5), tmp_path / "ours.arpa")
    ours, theirs = listed(tmp_path / "ours.arpa"), listed(tmp_path / "theirs.arpa")
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose([*ours.values()], [theirs[n] for n in ours], atol=3e-6)


# For any text


@settings(max_examples=60, deadline=None)
@given(texts, orders, st.lists(st.sampled_from([*"abc", "é", "never heard"]), max_size=4))
def test_probabilities_sum_to_one_in_every_context(text, order, context):
    model = estimate(text, order)
    last = len(context)
    following = [model.word_scores([*context, word])[last] for word in (*model.vocabulary, "?!")]
    total = sum(10**score for score in [*following, model.word_scores(context)[last]])
    assert total == pytest.approx(1, abs=1e-5)  # float32 logarithms


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 3), st.integers(2, 3))
def test_probabilities_sum_to_one_where_ngrams_and_words_are_left_out(text, threshold, least):
    assume(max(Counter(itertools.chain(*text)).values()) >= least)
    model = estimate(text, 3, prune=(0, 0, threshold), min_count=least)
    for context in ([], ["a"], ["a", "b"], ["b", "b"], ["?!", "a"]):
        last = len(context)
        following = [model.word_scores([*context, w])[last] for w in (*model.vocabulary, "?!")]
        total = sum(10**score for score in [*following, model.word_scores(context)[last]])
        assert total == pytest.approx(1, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(texts, orders, st.randoms(use_true_random=False))
def test_the_order_of_sentences_does_not_matter(text, order, random):
    shuffled = random.sample(text, len(text))
    one, other = estimate(text, order), estimate(shuffled, order)
    assert one.words == other.words
    for ours, theirs in zip(one.ngrams, other.ngrams, strict=True):
        for column in ("context", "word", "log_prob", "backoff"):
            np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))


@settings(max_examples=40, deadline=None)
@given(texts, orders, sentences)
def test_a_file_gives_the_same_model_back_and_scores_by_backing_off(
    tmp_path_factory, text, order, sentence
):
    path = tmp_path_factory.getbasetemp() / "round.arpa"
    model = estimate(text, order)
    write_arpa(model, path)
    again = read_arpa(path)
    assert again.words == model.words
    assert again.score(sentence) == model.score(sentence)
    table = listed(path)
    known = [word if (word,) in table else "<unk>" for word in sentence]
    marked = ["<s>", *known, "</s>"]
    expected = [
        backed_off(table, tuple(marked[max(0, end + 1 - model.order) : end]), marked[end])
        for end in range(1, len(marked))
    ]
    np.testing.assert_allclose(model.word_scores(sentence), expected, atol=1e-6)


def test_a_text_shorter_than_the_order_gives_a_model_of_lower_order():
    model = estimate([["go"], ["stop"], ["go"]], order=5)
    assert model.order == 3  # <s> go </s>
    assert model.score(["go"]) > model.score(["stop"]) > model.score(["fly"])


def test_a_sentence_may_be_longer_than_all_that_was_read():
    model = estimate([["a", "b"]], 3)
    long = ["a", "b"] * 500
    assert len(model.word_scores(long)) == 1001
    # 500 words and an end for each of two sentences: counted over batches as one by one
    assert model.perplexity([long, long]).perplexity == pytest.approx(
        10 ** (-model.score(long) / 1001)
    )


def test_batches_of_sentences_are_added_up():
    model = estimate(text_of("lamps"), 3)
    one = model.perplexity(held_out_of("lamps"))
    many = model.perplexity(held_out_of("lamps") * 800)  # more than two batches
    assert many.perplexity == pytest.approx(one.perplexity)
    assert (many.tokens, many.unknown) == (800 * one.tokens, 800 * one.unknown)
    assert one.unknown_rate == one.unknown / sum(map(len, held_out_of("lamps")))


def test_unknown_words_share_one_probability():
    model = estimate(text_of("zipf"), 2)
    assert model.score(["quux"]) == model.score(["<unk>"]) == model.score(["né"])


def test_rare_words_are_unknown_where_a_least_count_is_given():
    model = estimate([["a", "b"], ["a", "c"], ["a", "b"]], 2, min_count=2)
    assert model.vocabulary == ("a", "b")
    assert model.perplexity([["c"]]).unknown == 1
    with pytest.raises(TranscriptError, match="occurs 4 times"):
        estimate([["a", "b"], ["a", "c"], ["a", "b"]], 2, min_count=4)


def test_pruned_ngrams_are_left_out_by_how_often_they_occur():
    text = [["a", "b", "c"]] * 2 + [["a", "b", "d"]] + [["b", "a"]]
    full, pruned = estimate(text, 3), estimate(text, 3, prune=(0, 0, 1))
    assert [len(grams) for grams in pruned.ngrams[:2]] == [len(g) for g in full.ngrams[:2]]
    assert len(pruned.ngrams[2]) == 3  # <s> a b, a b c, b c </s>


def test_discounts_that_cannot_be_estimated_are_told_of():
    model = estimate([["a", "b"]], 2)
    assert model.fallback_orders == (1, 2)
    assert model.discounts == (FALLBACK, FALLBACK)
    assert estimate(text_of("zipf"), 3).fallback_orders == ()
    with pytest.raises(DataError, match="1-grams"):
        estimate([["a", "b"]], 2, fallback=None)


@pytest.mark.parametrize("text", [[], [[]], [[], []]])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(TranscriptError, match="no words"):
        estimate(text)


@pytest.mark.parametrize("word", [*SPECIALS, "two words", "", "a\u00a0b", "a\nb", "a\0", "\ud800"])
def test_what_cannot_be_a_word_in_a_file_is_refused(word):
    with pytest.raises(TranscriptError):
        estimate([["a", word]])


def test_marks_of_sentences_are_refused_in_what_is_scored():
    model = estimate([["a"]])
    for mark in ("<s>", "</s>"):
        with pytest.raises(TranscriptError, match=mark):
            model.score(["a", mark])
    with pytest.raises(TranscriptError, match="no sentence"):
        model.perplexity([])


@pytest.mark.parametrize(
    "wrong",
    [
        *({"order": 0}, {"min_count": 0}, {"prune": (1,)}, {"prune": (0, 2, 1)}),
        *({"prune": (0, 0, 0, 1)}, {"prune": (0, -1)}, {"fallback": (0.5, 1, 3.1)}),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        estimate([["a"]], **wrong)


# Files of others


MINIMAL = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1 <unk>
0 <s> -0.3
-0.5 </s>
-0.4 a -0.2

\\2-grams:
-0.1 <s> a
-0.2 a </s>

\\end\\
"""


def read_text(tmp_path, content):
    (tmp_path / "model.arpa").write_text(content, "utf-8")
    return read_arpa(tmp_path / "model.arpa")


def test_spaces_part_fields_and_text_before_the_data_is_skipped(tmp_path):
    model = read_text(tmp_path, "made by hand\r\n" + MINIMAL.replace("\n", "\r\n"))
    assert model.vocabulary == ("a",)
    assert model.score(["a"]) == pytest.approx(-0.3)
    assert model.score(["b", "a"]) == pytest.approx(-0.3 - 1 - 0.4 - 0.2)


def test_the_space_of_a_script_is_part_of_a_word_in_a_file(tmp_path):
    model = read_text(tmp_path, MINIMAL.replace(" a", " a\u00a0b"))
    assert model.score(["a\u00a0b"]) == pytest.approx(-0.3)


def test_a_file_without_unknown_words_gives_them_next_to_nothing(tmp_path):
    model = read_text(tmp_path, MINIMAL.replace("-1 <unk>\n", "").replace("1=4", "1=3"))
    assert model.score(["b"]) == pytest.approx(-0.3 - 100 - 0.5)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("\\data\\", "data", "ends before"),
        ("\\end\\", "", "ends before"),
        ("ngram 2=2", "ngram 3=2", "ngram 2="),
        ("ngram 2=2", "ngram 2=3", "order 2"),
        ("ngram 2=2", "ngram 2=1", "end"),
        ("-0.1 <s> a", "0.1 <s> a", "above 1"),
        ("-0.1 <s> a", "nan <s> a", "order 2"),
        ("-0.1 <s> a", "-0.1 <s>", "order 2"),
        ("-0.1 <s> a", "-0.1 <s> b", "without 'b'"),
        ("-0.1 <s> a", "-0.1 b a", "without 'b'"),
        ("-0.1 <s> a", "-0.1 a </s>", "twice"),
        ("-0.4 a -0.2", "-0.4 <unk> -0.2", "twice"),
        ("-0.5 </s>", "-0.5 b", "</s>"),
        ("-0.4 a -0.2", "-0.4 a x", "order 1"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, old, new, message):
    assert old in MINIMAL
    with pytest.raises(ModelError, match=re.escape(message)):
        read_text(tmp_path, MINIMAL.replace(old, new))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"mmap lm http://kheafield.com/code format version 5", "binary"),
        (b"\x1f\x8b\xff", "UTF-8"),
        (None, "cannot read"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.arpa").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_arpa(tmp_path / "model.arpa")


# Characters


def test_a_text_becomes_characters_with_a_sign_for_the_space():
    assert characters("né a") == ["n", "é", CHARACTER_SPACE, "a"]
    with pytest.raises(TranscriptError, match=re.escape("'|'")):
        characters("a|b")


# The command


@pytest.fixture
def corpus(tmp_path):
    """A manifest of three splits; no recordings, which are not looked at."""
    rows = [
        *("a\tTurn it on!\ttrain", "b\tturn it off\ttrain", "c\tturn it up\ttrain"),
        *("d\tturn it around\tdev", "e\tnobody's test\ttest"),
    ]
    path = tmp_path / "mine.tsv"
    path.write_text("\n".join(["path\ttext\tsplit", *rows]) + "\n")
    return path


def test_the_training_split_becomes_a_model_and_the_dev_split_is_held_out(
    speechrnn, corpus, tmp_path
):
    out, lexicon = tmp_path / "lm" / "lm.arpa", tmp_path / "words.txt"
    code, printed, err = speechrnn(
        *("lm", corpus, "-o", out, "--lexicon", lexicon, "--held-out", corpus, "--json")
    )
    assert code == 0, err
    assert lexicon.read_text() == "it\noff\non\nturn\nup\n"
    result = json.loads(printed)
    model = read_arpa(out)
    assert set(model.vocabulary) == {"turn", "it", "on", "off", "up"}
    assert (result["sentences"], result["words"], result["vocabulary"]) == (3, 9, 5)
    assert result["ngrams"] == [len(grams) for grams in model.ngrams] == [8, 8, 7]
    expected = model.perplexity([["turn", "it", "around"]])
    assert result["held_out"]["perplexity"] == pytest.approx(expected.perplexity, rel=1e-6)
    assert (result["held_out"]["unknown"], result["held_out"]["tokens"]) == (1, 4)
    assert "the split train is read" in err and "the split dev is read" in err
    assert result["fallback_orders"] == [1, 2, 3] and "too small" in err


def test_the_figures_are_printed_for_people(speechrnn, corpus, tmp_path):
    out = tmp_path / "lm.arpa"
    code, printed, _ = speechrnn("lm", corpus, "-o", out, "--order", 2, "--held-out", corpus)
    assert code == 0
    found = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in printed.splitlines())
    assert found["text"] == "3 sentences, 9 words"
    assert found["n-grams of order 2"] == "8"
    assert "1 unknown (33.33%)" in found["held-out text"]
    assert found["language model"] == str(out)


def test_text_and_manifests_are_read_together_and_normalised(speechrnn, corpus, tmp_path):
    text = tmp_path / "more.txt"
    text.write_bytes("\ufeffDon’t stop, NOW.\r\n\n".encode())
    code, printed, err = speechrnn(
        *("lm", corpus, text, "-o", tmp_path / "lm.arpa", "--split", "test", "--json")
    )
    assert code == 0, err
    assert json.loads(printed)["sentences"] == 2
    assert set(read_arpa(tmp_path / "lm.arpa").vocabulary) == {
        *("don't", "stop", "now", "nobody's", "test")
    }


def test_progress_counts_every_byte_that_is_read(corpus, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three\n" * 10_000)
    for path, count in ((text, 10_000), (corpus, 3)):
        done = []
        assert len(list(sentence_files.read(path, advance=done.append))) == count
        assert sum(done) == path.stat().st_size


def test_characters_are_the_units_on_demand(speechrnn, corpus, tmp_path):
    out, lexicon = tmp_path / "lm.arpa", tmp_path / "words.txt"
    code, _, err = speechrnn(
        *("lm", corpus, "-o", out, "--units", "characters", "--order", 4, "--lexicon", lexicon)
    )
    assert code == 0, err
    model = read_arpa(out)
    assert set(model.vocabulary) == set("turnitonoffup|")
    assert model.score(characters("turn it")) > model.score(characters("it turn"))
    assert lexicon.read_text().split() == ["it", "off", "on", "turn", "up"]


def test_words_that_a_model_cannot_write_are_told_and_not_in_the_lexicon(speechrnn, tmp_path):
    shipped = REPOSITORY / "speechrnn" / "pretrained" / "an4.tflite"
    text, lexicon = tmp_path / "text.txt", tmp_path / "words.txt"
    text.write_text("GO to café 7\ngo to café\n", "utf-8")
    code, printed, err = speechrnn(
        *(
            "lm",
            text,
            "-o",
            tmp_path / "lm.arpa",
            "--lexicon",
            lexicon,
            "--model",
            shipped,
            "--json",
        )
    )
    assert code == 0, err
    assert lexicon.read_text() == "go\nto\n"
    assert "2 words, 3 times in the text" in err and "7, café" in err
    assert json.loads(printed)["foreign_words"] == 2
    assert "café" in read_arpa(tmp_path / "lm.arpa").vocabulary


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("mine.tsv", "-o", "lm.arpa", "--units", "syllables"), 2, "words or characters"),
        (("mine.tsv", "-o", "lm.arpa", "--prune", "0,x"), 2, "whole numbers"),
        (("mine.tsv", "-o", "lm.arpa", "--prune", "1"), 2, "pruning thresholds"),
        (("mine.tsv", "-o", "mine.tsv"), 2, "is read too"),
        (("mine.tsv", "-o", "lm.arpa", "--lexicon", "lm.arpa"), 2, "the file of"),
        (("text.txt", "-o", "lm.arpa", "--split", "train"), 2, "no TEXT is a manifest"),
        (("mine.tsv", "-o", "lm.arpa", "--split", "eval"), 3, "dev, test, train"),
        (("none.txt", "-o", "lm.arpa"), 3, "none.txt"),
        (("empty.txt", "-o", "lm.arpa"), 3, "no words"),
        (("latin1.txt", "-o", "lm.arpa"), 3, "line 2 is not UTF-8"),
        (("text.txt", "-o", "lm.arpa", "--held-out", "empty.txt"), 3, "no sentence"),
        (("text.txt", "-o", "lm.arpa", "--model", "none.tflite"), 4, "none.tflite"),
    ],
)
def test_what_cannot_be_done_ends_with_its_exit_code(
    speechrnn, corpus, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(corpus.parent)
    Path("text.txt").write_text("one two\n")
    Path("empty.txt").write_text("\n  \n--\n")
    Path("latin1.txt").write_bytes(b"one\ncaf\xe9\n")
    found, _, err = speechrnn("lm", *arguments)
    assert found == code, err
    assert message in " ".join(re.sub(r"[│╭╰╮╯─]", " ", err).split())


def test_orders_that_decoding_does_not_read_are_told(speechrnn, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("one two three four\n" * 3)
    out = tmp_path / "lm.arpa"
    assert "decoding reads orders 2 to 6" in speechrnn("lm", text, "-o", out, "--order", 1)[2]
    assert "the model has order 6" in speechrnn("lm", text, "-o", out, "--order", 9)[2]
