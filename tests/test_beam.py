"""Beam search against every path there is; files and settings that cannot be used."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.decoding import beam, lexicon
from speechrnn.decoding import settings as settings_file
from speechrnn.decoding.beam import BeamDecoder
from speechrnn.decoding.greedy import greedy
from speechrnn.decoding.hotwords import START, Hotwords
from speechrnn.decoding.settings import DecoderSettings
from speechrnn.errors import DataError, ModelError, UsageError
from speechrnn.specs import AlphabetSpec, TextRules
from speechrnn.text import Alphabet

ALPHABET = Alphabet(AlphabetSpec((" ", "a", "b")))
WORDS = ("a", "ab", "ba")
# log10 of bigrams; what is not listed backs off
WORD_LM = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.2\t<unk>
-99\t<s>\t-0.3
-0.7\t</s>
-0.5\ta\t-0.2
-0.9\tab\t-0.1
-0.6\tba\t-0.4

\\2-grams:
-0.4\t<s> ab
-0.2\tab a
-0.3\ta </s>
-0.8\tba ba

\\end\\
"""
CHARACTER_LM = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-2\t<unk>
-99\t<s>\t-0.2
-0.8\t</s>
-0.6\t|\t-0.1
-0.5\ta\t-0.3
-0.7\tb\t-0.2

\\2-grams:
-0.1\ta b
-0.3\t| b
-0.4\tb </s>

\\end\\
"""
few = settings(max_examples=40)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beam")
    for name, content in {
        "words.txt": "\n".join(WORDS),
        "words.arpa": WORD_LM,
        "characters.arpa": CHARACTER_LM,
    }.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def posteriors(frames, seed, labels=4, sharpness=2.0):
    logits = np.random.default_rng(seed).normal(0, sharpness, [frames, labels])
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def written(path):
    """The text of a path of labels, its spaces as they are."""
    labels = [label for label, _ in itertools.groupby(path)]
    return "".join(ALPHABET.spec.symbols[label - 1] for label in labels if label)


def backed_off(arpa, tokens):
    """Natural logarithm of a bigram model's probability of tokens and the end, read by hand."""
    grams = {}
    for line in arpa.splitlines():
        parts = line.split("\t")
        if len(parts) > 1:
            grams[parts[1]] = (float(parts[0]), float(parts[2]) if len(parts) > 2 else 0.0)
    total, before = 0.0, "<s>"
    for token in [*tokens, "</s>"]:
        bigram = grams.get(f"{before} {token}")
        total += bigram[0] if bigram else grams[before][1] + grams[token][0]
        before = token
    return total * math.log(10)


def best_of_all(log_probs, bonus):
    """The score of the best path to each text, of every path there is; ``bonus(text)`` is None
    where it must not be. A search begins behind a space: one in the first frame is no other."""
    best = {}
    for path in itertools.product(range(4), repeat=len(log_probs)):
        text = written((1, *path))[1:]
        extra = bonus(text)
        if extra is not None:
            score = float(log_probs[np.arange(len(path)), list(path)].sum()) + extra
            heard = " ".join(text.split())
            best[heard] = max(score, best.get(heard, -math.inf))
    return best


def in_lexicon(text):
    return all(word in WORDS for word in text.split())


def agree(decoder, log_probs, bonus):
    """The best of all is found. 1e-3 for sums in float32: of texts so close either will do."""
    best = best_of_all(log_probs, bonus)
    found = decoder.n_best(log_probs, 1)[0]
    assert found.score == pytest.approx(max(best.values()), abs=1e-3)
    assert best[found.hypothesis.text] == pytest.approx(found.score, abs=1e-3)
    assert decoder.decode(log_probs) == found.hypothesis


@given(st.integers(1, 6), st.integers(0, 10**6))
@few
def test_without_anything_the_best_path_is_found(frames, seed):
    log_probs = posteriors(frames, seed)
    assert BeamDecoder(ALPHABET, DecoderSettings()).decode(log_probs) == greedy(log_probs, ALPHABET)


@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(-2, 2))
@few
def test_with_a_lexicon_the_best_path_of_its_words_is_found(files, frames, seed, word_score):
    decoder = BeamDecoder(
        ALPHABET, DecoderSettings(lexicon=files / "words.txt", word_score=word_score, beam=500)
    )
    log_probs = posteriors(frames, seed)
    agree(
        decoder,
        log_probs,
        lambda text: word_score * len(text.split()) if in_lexicon(text) else None,
    )


@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(0, 2), st.floats(-1, 1))
@few
def test_a_model_of_words_weighs_in_natural_logarithms(files, frames, seed, weight, word_score):
    decoder = BeamDecoder(
        ALPHABET,
        DecoderSettings(lm=files / "words.arpa", lm_weight=weight, word_score=word_score, beam=500),
    )

    def bonus(text):
        words = text.split()
        if not in_lexicon(text):
            return None
        return weight * backed_off(WORD_LM, words) + word_score * len(words)

    agree(decoder, posteriors(frames, seed), bonus)


@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(0, 2))
@few
def test_a_model_of_characters_needs_no_lexicon(files, frames, seed, weight):
    decoder = BeamDecoder(
        ALPHABET, DecoderSettings(lm=files / "characters.arpa", lm_weight=weight, beam=500)
    )

    def bonus(text):
        return weight * backed_off(CHARACTER_LM, text.replace(" ", "|"))

    agree(decoder, posteriors(frames, seed), bonus)


@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(-3, 3))
@few
def test_hotwords_are_worth_their_boost_each_time(files, frames, seed, boost):
    log_probs = posteriors(frames, seed)
    hotwords = {"ba": boost, "a ab": 1.0}

    def bonus(text):
        words = text.split()
        pairs = sum(pair == ("a", "ab") for pair in itertools.pairwise(words))
        return boost * words.count("ba") + pairs

    free = BeamDecoder(ALPHABET, DecoderSettings(hotwords=hotwords, beam=500))
    # Two spaces in a row, with a blank between, stand in no phrase.
    agree(free, log_probs, lambda text: bonus(text.replace("  ", " x ")))
    closed = DecoderSettings(hotwords=hotwords, lexicon=files / "words.txt", beam=500)
    agree(
        BeamDecoder(ALPHABET, closed),
        log_probs,
        lambda text: bonus(text) if in_lexicon(text) else None,
    )


@given(
    st.dictionaries(
        st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple), st.floats(-2, 2), max_size=5
    ),
    st.lists(st.integers(0, 2), max_size=12),
)
def test_boosts_add_up_to_the_phrases_that_occur(phrases, tokens):
    hotwords, state, total = Hotwords(phrases), START, 0.0
    for token in tokens:
        state, boost = hotwords.step(state, token)
        total += boost
    occurring = sum(
        boost
        for phrase, boost in phrases.items()
        for at in range(len(tokens))
        if tuple(tokens[at : at + len(phrase)]) == phrase
    )
    assert total + hotwords.finish(state) == pytest.approx(occurring, abs=1e-9)


def test_hotwords_join_the_lexicon(files):
    log_probs = posteriors(6, 0)
    hot = DecoderSettings(lexicon=files / "words.txt", hotwords={"BB": 100.0})
    assert "bb" in BeamDecoder(ALPHABET, hot).decode(log_probs).text.split()


def test_a_word_that_the_model_of_words_does_not_know_has_the_probability_of_unk(files, tmp_path):
    (tmp_path / "words.txt").write_text("a\nbb\n")
    settings = DecoderSettings(
        lm=files / "words.arpa", lexicon=tmp_path / "words.txt", lm_weight=1.0, beam=500
    )
    decoder = BeamDecoder(ALPHABET, settings)
    assert "1 of 2 words of the lexicon are unknown" in decoder.remarks[0]

    def bonus(text):
        if not all(word in ("a", "bb") for word in text.split()):
            return None
        return backed_off(WORD_LM, ["<unk>" if word == "bb" else word for word in text.split()])

    for seed in range(10):
        agree(decoder, posteriors(6, seed), bonus)


def test_the_n_best_are_different_texts_in_order(files):
    decoder = BeamDecoder(ALPHABET, DecoderSettings(lm=files / "words.arpa"))
    found = decoder.n_best(posteriors(8, 3), 5)
    assert len({one.hypothesis.text for one in found}) == len(found) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.acoustic_score <= 0 for one in found)


@pytest.mark.parametrize("settings", [{}, {"lexicon": "words.txt"}, {"lm": "words.arpa"}])
@pytest.mark.parametrize("width", [1, 2, 100])
def test_any_beam_gives_a_text_of_the_lexicon(files, settings, width):
    paths = {name: files / file for name, file in settings.items()}
    decoder = BeamDecoder(ALPHABET, DecoderSettings(beam=width, **paths))
    for seed in range(5):
        heard = decoder.decode(posteriors(20, seed))
        assert " ".join(word.text for word in heard.words) == heard.text
        assert not settings or in_lexicon(heard.text)


@pytest.mark.parametrize("settings", [{}, {"lexicon": "words.txt"}, {"lm": "characters.arpa"}])
def test_without_frames_nothing_was_said(files, settings):
    paths = {name: files / file for name, file in settings.items()}
    decoder = BeamDecoder(ALPHABET, DecoderSettings(hotwords={"ab": 2}, **paths))
    empty = np.zeros([0, 4], np.float32)
    assert decoder.decode(empty) == greedy(empty, ALPHABET)
    assert [one.hypothesis.text for one in decoder.n_best(empty, 3)] == [""]


def spoken(words):
    """Log-probabilities in which words are heard without much doubt, ten blanks after each."""
    labels = [0] * 5
    for char in "".join(word + " " for word in words):
        labels += [1 + ALPHABET.spec.symbols.index(char)] * 4 + [0] * (10 if char == " " else 1)
    sure = posteriors(len(labels), 0, sharpness=0.5)
    sure[np.arange(len(labels)), labels] += 4
    return sure - np.logaddexp.reduce(sure, axis=1, keepdims=True)


@given(st.integers(1, 6), st.integers(0, 10**6), st.floats(0, 2))
@few
def test_a_model_of_characters_weighs_the_words_of_a_lexicon(files, frames, seed, weight):
    decoder = BeamDecoder(
        ALPHABET,
        DecoderSettings(
            lm=files / "characters.arpa", lexicon=files / "words.txt", lm_weight=weight, beam=500
        ),
    )

    def bonus(text):
        if not in_lexicon(text):
            return None
        return weight * backed_off(CHARACTER_LM, "|".join(text.split()))

    agree(decoder, posteriors(frames, seed), bonus)


@pytest.mark.parametrize("settings", [{}, {"lexicon": "words.txt"}, {"lm": "characters.arpa"}])
def test_a_long_recording_in_parts_reads_as_the_whole(files, settings, monkeypatch):
    paths = {name: files / file for name, file in settings.items()}
    decoder = BeamDecoder(ALPHABET, DecoderSettings(**paths))
    words = np.random.default_rng(0).choice(WORDS, 40)
    whole = decoder.decode(spoken(words))
    assert whole.text == " ".join(words)
    for longest in (50, 61, 200):
        monkeypatch.setattr(beam, "LONGEST", longest)
        assert decoder.decode(spoken(words)).text == whole.text


@pytest.mark.parametrize("settings", [{"lexicon": "words.txt"}, {"lm": "words.arpa"}])
def test_a_part_s_last_word_does_not_run_into_the_next_part(files, settings, monkeypatch):
    """Where a network writes no space in a pause, a word of a lexicon still ends there."""
    paths = {name: files / file for name, file in settings.items()}
    decoder = BeamDecoder(ALPHABET, DecoderSettings(**paths, lm_weight=0.1))
    words = list(np.random.default_rng(1).choice(WORDS, 30))
    pause = np.log(np.tile(np.float32([0.95, 0.03, 0.01, 0.01]), (20, 1)))
    spoken_words = [spoken([word])[:-14] for word in words]  # without its space and blanks
    log_probs = np.concatenate([part for each in spoken_words for part in (each, pause)])
    monkeypatch.setattr(beam, "LONGEST", 100)
    assert decoder.decode(log_probs).text.split() == words


def test_the_first_of_the_n_best_is_the_text_in_parts_too(files, monkeypatch):
    decoder = BeamDecoder(ALPHABET, DecoderSettings(lm=files / "words.arpa"))
    log_probs = posteriors(60, 5)
    monkeypatch.setattr(beam, "LONGEST", 25)
    found = decoder.n_best(log_probs, 20)
    assert found[0].hypothesis == decoder.decode(log_probs)
    assert len({each.hypothesis.text for each in found}) == 20
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert all(in_lexicon(each.hypothesis.text) for each in found)


def test_parts_are_cut_in_pauses_and_cover_every_frame(monkeypatch):
    monkeypatch.setattr(beam, "LONGEST", 60)
    log_probs = spoken(["ab", "ba"] * 20)
    parts = [*beam._parts(log_probs, np.array([0, 1]))]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(log_probs)
    assert all(part.stop - part.start <= 60 for part in parts)
    assert all(log_probs[part.start].argmax() < 2 for part in parts)
    noise = np.log(np.tile(np.float32([0.01, 0.01, 0.97, 0.01]), (200, 1)))
    assert sum(part.stop - part.start for part in beam._parts(noise, np.array([0, 1]))) == 200


def test_impossible_symbols_are_no_obstacle():
    log_probs = np.full([3, 4], -np.inf, np.float32)
    log_probs[[0, 1, 2], [2, 0, 3]] = 0
    assert BeamDecoder(ALPHABET, DecoderSettings()).decode(log_probs).text == "ab"


def test_posteriors_of_another_alphabet_are_refused():
    with pytest.raises(ModelError, match=r"shape \(3, 5\)"):
        BeamDecoder(ALPHABET, DecoderSettings()).decode(posteriors(3, 0, labels=5))


# Files that cannot be used


def test_words_with_symbols_beyond_the_alphabet_are_left_out_and_named(tmp_path):
    (tmp_path / "words.txt").write_text("AB a b |\nzoo\nzebra\n\nba\n")
    with pytest.raises(DataError, match=r"line 1 spells 'AB' as 'a b \|'"):
        lexicon.read(tmp_path / "words.txt", ALPHABET)
    (tmp_path / "words.txt").write_text("AB\tA B |\nzoo\nzebra\n\nba\n")
    found = lexicon.read(tmp_path / "words.txt", ALPHABET)
    assert (found.words, found.skipped) == (("ab", "ba"), ("zebra", "zoo"))
    decoder = BeamDecoder(ALPHABET, DecoderSettings(lexicon=tmp_path / "words.txt"))
    assert "2 of 4 words have symbols" in decoder.remarks[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no words"),
        ("zoo\n", "each of its 1 words"),
        ("\xff", "not UTF-8"),
        (None, "cannot read"),
    ],
)
def test_a_lexicon_without_usable_words_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message) as caught:
        BeamDecoder(ALPHABET, DecoderSettings(lexicon=path))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the language model"),
        ("hello\n", "no language model that KenLM reads"),
        ("\udcff\udcfe\x00 bad", "no language model that KenLM reads"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", "order 2 to 6"),
        (WORD_LM[:150], "no language model that KenLM reads|no ARPA file"),
        (CHARACTER_LM.replace("\ta", "\tx").replace("\tb", "\ty"), "other characters"),
        (WORD_LM.replace("a", "x").replace("dxtx", "data").replace("grxm", "gram"), "each of its"),
    ],
    ids=["missing", "foreign", "bytes", "order 1", "cut", "other characters", "other words"],
)
def test_a_language_model_that_cannot_serve_is_refused(tmp_path, content, message):
    path = tmp_path / "model.arpa"
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises((ModelError, DataError), match=message):
        BeamDecoder(ALPHABET, DecoderSettings(lm=path))


def test_a_lexicon_that_the_model_of_words_does_not_know_at_all_is_refused(files, tmp_path):
    (tmp_path / "words.txt").write_text("bb\nbbb\n")
    with pytest.raises(ModelError, match="knows none of the 2 words"):
        BeamDecoder(
            ALPHABET, DecoderSettings(lm=files / "words.arpa", lexicon=tmp_path / "words.txt")
        )


def test_an_alphabet_may_have_the_character_that_stands_for_the_space(files):
    alphabet = Alphabet(AlphabetSpec((" ", "a", "b", "|"), TextRules(keep="|")))
    path = files / "bars.txt"
    path.write_text("a|b\n")
    log_probs = posteriors(6, 0, labels=5)
    for hotwords in ({}, {"a|b": 99.0}):
        decoder = BeamDecoder(alphabet, DecoderSettings(hotwords=hotwords))
        assert set(decoder.decode(log_probs).text) <= {" ", "a", "b", "|"}
    assert "a|b" in decoder.decode(log_probs).text.split()
    assert BeamDecoder(alphabet, DecoderSettings(lexicon=path, word_score=99)).decode(
        log_probs
    ).text in ("a|b", "")


def test_a_hotword_that_the_model_cannot_write_is_refused():
    for phrase in ("zoo", "!"):
        with pytest.raises((DataError, UsageError), match="hotword"):
            BeamDecoder(ALPHABET, DecoderSettings(hotwords={phrase: 1.0}))


def test_an_alphabet_without_a_space_has_no_lexicon(files):
    alphabet = Alphabet(AlphabetSpec(("a", "b")))
    with pytest.raises(DataError, match="no space"):
        BeamDecoder(alphabet, DecoderSettings(lexicon=files / "words.txt"))
    log_probs = posteriors(5, 0, labels=3)
    free = BeamDecoder(alphabet, DecoderSettings(hotwords={"ab": 1}, lm=files / "characters.arpa"))
    assert set(free.decode(log_probs).text) <= {"a", "b"}


# Settings


def test_settings_survive_their_file_and_its_move(files, tmp_path):
    written = DecoderSettings(
        beam=7, lm=files / "words.arpa", lm_weight=0.25, hotwords={"ab a": 1.5}, symbols=3
    )
    settings_file.save(files / "decoder.json", written, {"wer": 0.1})
    read = settings_file.load(files / "decoder.json")
    assert read.lm.resolve() == (files / "words.arpa").resolve()
    assert read == DecoderSettings(**{**vars(written), "lm": read.lm})
    assert json.loads((files / "decoder.json").read_text())["settings"]["lm"] == "words.arpa"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, DataError, "cannot read"),
        ("{", DataError, "not JSON"),
        ("[]", DataError, "no decoder settings"),
        ('{"format": 9}', DataError, "of format 1"),
        ('{"format": 1, "settings": {"bean": 3}}', DataError, "bean"),
        ('{"format": 1, "settings": {"beam": "x"}}', DataError, "whole numbers"),
        ('{"format": 1, "settings": {"beam": 0}}', UsageError, "1 to 100000"),
        ('{"format": 1, "settings": {"beam": 99999999999}}', UsageError, "1 to 100000"),
        ('{"format": 1, "settings": {"lm_weight": NaN}}', UsageError, "finite"),
        ('{"format": 1, "settings": {"lm": "a", "neural_lm": "b"}}', UsageError, "two language"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, content, error, message):
    path = tmp_path / "decoder.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message):
        settings_file.load(path)
