"""Forced alignment against every path there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.decoding import alignment
from speechrnn.decoding.alignment import align, mismatch
from speechrnn.decoding.greedy import greedy
from speechrnn.errors import TranscriptError
from speechrnn.specs import AlphabetSpec
from speechrnn.text import BLANK, Alphabet

ALPHABET = Alphabet(AlphabetSpec((" ", "a", "b")))
SIZE = ALPHABET.spec.size


def random_log_probs(frames, seed, spread=2.0):
    logits = np.random.default_rng(seed).normal(0, spread, [frames, SIZE])
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def collapsed(path):
    return [label for label, _ in itertools.groupby(path) if label != BLANK]


def paths_of(labels, frames):
    """Every path of so many frames that is read as ``labels``."""
    return [p for p in itertools.product(range(SIZE), repeat=frames) if collapsed(p) == labels]


def frame_by_frame(aligned):
    path = [BLANK] * aligned.frames
    for symbol in aligned.symbols:
        for frame in range(symbol.start_frame, symbol.end_frame):
            path[frame] = symbol.label
    return path


@given(
    frames=st.integers(1, 6),
    labels=st.lists(st.integers(1, SIZE - 1), max_size=4),
    seed=st.integers(0, 99),
)
def test_the_path_is_the_best_of_all_paths_of_the_transcript(frames, labels, seed):
    log_probs = random_log_probs(frames, seed)
    paths = paths_of(labels, frames)
    if not paths:
        with pytest.raises(TranscriptError, match=f"{len(labels)} symbols .* gives {frames}"):
            align(log_probs, labels)
        return
    scores = [float(log_probs[np.arange(frames), list(path)].sum()) for path in paths]
    aligned = align(log_probs, labels)
    assert aligned.log_prob == pytest.approx(max(scores), abs=1e-5)  # float32 sums of 6
    found = frame_by_frame(aligned)
    assert collapsed(found) == labels
    assert log_probs[np.arange(frames), found].sum() == pytest.approx(max(scores), abs=1e-5)


@given(labels=st.lists(st.integers(1, SIZE - 1), max_size=12), seed=st.integers(0, 99))
def test_constructed_posteriors_are_aligned_frame_for_frame(labels, seed):
    rng = np.random.default_rng(seed)
    path, before = [], None
    for label in labels:
        path += [BLANK] * int(rng.integers(label == before, 3)) + [label] * int(rng.integers(1, 4))
        before = label
    path += [BLANK] * int(rng.integers(0, 3))
    log_probs = np.log(np.where(np.eye(SIZE)[path] > 0, 0.94, 0.02)).reshape(-1, SIZE)
    aligned = align(log_probs, labels)
    assert frame_by_frame(aligned) == path
    assert all(s.log_prob == pytest.approx(np.log(0.94)) for s in aligned.symbols)
    assert aligned.mismatch == pytest.approx(0, abs=1e-12)


@given(seed=st.integers(0, 200), frames=st.integers(0, 60))
def test_nothing_fits_better_than_what_greedy_reads(seed, frames):
    log_probs = random_log_probs(frames, seed).reshape(-1, SIZE)
    heard = greedy(log_probs, ALPHABET)
    labels = [token.label for token in heard.tokens]
    assert mismatch(log_probs, labels) == pytest.approx(0, abs=1e-9)
    found = align(log_probs, labels).hypothesis(ALPHABET)
    assert found.text == heard.text
    for one, other in zip(found.words, heard.words, strict=True):
        assert (one.text, one.start_frame) == (other.text, other.start_frame)
        assert one.end_frame == other.end_frame
        # exp of a NumPy float32 and of a Python float
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)
    if len(labels) > 1:
        wrong = [label % (SIZE - 1) + 1 for label in labels]
        assert mismatch(log_probs, wrong) > 0


def test_a_long_recording_in_blocks_has_the_path_of_one_in_one_piece(monkeypatch):
    log_probs = random_log_probs(700, seed=5)
    labels = [int(label) for label in np.random.default_rng(6).integers(1, SIZE, 200)]
    whole = align(log_probs, labels)
    for block in (1, 2, 3, 64, 699, 700):
        monkeypatch.setattr(alignment, "BLOCK", block)
        assert align(log_probs, labels) == whole


def test_an_empty_transcript_is_silence_and_no_frames_hold_no_symbol():
    log_probs = random_log_probs(5, seed=1)
    aligned = align(log_probs, [])
    assert aligned.symbols == ()
    assert aligned.log_prob == pytest.approx(log_probs[:, BLANK].sum(), abs=1e-5)
    nothing = align(np.zeros([0, SIZE], np.float32), [])
    assert (nothing.symbols, nothing.mismatch, nothing.frames) == ((), 0, 0)
    with pytest.raises(TranscriptError, match="1 symbols and needs 1 frames"):
        align(np.zeros([0, SIZE], np.float32), [1])


def test_a_repeat_needs_a_frame_between():
    with pytest.raises(TranscriptError, match=r"2 symbols and needs 3 frames.*gives 2"):
        align(random_log_probs(2, seed=0), [2, 2])
    assert [s.start_frame for s in align(random_log_probs(3, seed=0), [2, 2]).symbols] == [0, 2]


@pytest.mark.parametrize("label", [BLANK, SIZE, -1])
def test_labels_that_are_no_symbols_are_refused(label):
    with pytest.raises(TranscriptError, match="1 to 3 are the alphabet's"):
        align(random_log_probs(4, seed=0), [1, label])


def test_a_posterior_of_zero_does_not_hide_the_rest_of_the_path():
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.eye(SIZE, dtype=np.float32)[[2, 0, 0, 3, 0]])
    found = align(log_probs, [2, 1, 3])  # the space was not heard at all
    assert [(s.start_frame, s.end_frame) for s in found.symbols][::2] == [(0, 1), (3, 4)]
    assert found.mismatch == pytest.approx(-alignment.LEAST / 3)
