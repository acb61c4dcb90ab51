"""Words begin and end where they are said, in order and within the recording."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechrnn.decoding.greedy import Hypothesis, Token
from speechrnn.decoding.pauses import Loudness
from speechrnn.decoding.timing import Timing, by_word, symbol_spans, word_spans
from speechrnn.errors import ModelError, ScoringError, TranscriptError
from speechrnn.evaluation.timing import LEAST, estimate
from speechrnn.runtime import Endpoint, Recognizer, Stream, container, default_model
from speechrnn.runtime.reading import Reader
from speechrnn.runtime.results import Habits, timed_words
from speechrnn.specs import AlphabetSpec, FeatureSpec, ModelSpec, RecogniserSpec, Statistics
from speechrnn.text import Alphabet

RATE = 16000
SPEC = RecogniserSpec(
    features=FeatureSpec(),
    alphabet=AlphabetSpec((" ", "a", "b")),
    model=ModelSpec(cell="gru", units=4, layers=1, subsampling="stack", time_stride=2),
)
FRAME = SPEC.seconds_per_output_frame  # 20 ms
NOWHERE = np.array([[0.0, 0.0], [60.0, 60.0]])  # a minute of sound without a pause


def tokens_at(text, frames):
    """A symbol of ``text`` at each of these frames."""
    labels = {" ": 1, "a": 2, "b": 3}
    return tuple(
        Token(symbol, labels[symbol], frame, frame + 1, 0.9)
        for symbol, frame in zip(text, frames, strict=True)
    )


def sound(*seconds_and_levels):
    """Noise of each level for so long."""
    rng = np.random.default_rng(0)
    parts = [level * rng.uniform(-1, 1, round(s * RATE)) for s, level in seconds_and_levels]
    return np.concatenate(parts).astype(np.float32)


# --- pauses ---


def pauses_of(waveform, block=10**9):
    loudness = Loudness(RATE)
    for start in range(0, len(waveform), block):
        loudness.feed(waveform[start : start + block])
    return loudness.pauses()


def test_pauses_are_where_the_recording_is_quiet_but_for_stops():
    waveform = sound((0.3, 0.01), (0.5, 0.5), (0.1, 0.01), (0.4, 0.4), (0.6, 0.01), (0.4, 0.5))
    np.testing.assert_allclose(pauses_of(waveform), [[0, 0.3], [1.3, 1.9], [2.3, 2.3]], atol=1e-9)


@given(block=st.integers(1, 30000))
def test_pauses_do_not_depend_on_the_blocks(block):
    waveform = sound((0.31, 0.0), (0.2, 0.5), (0.2, 0.0), (0.405, 0.5))[:9999]
    block = max(block, 50)  # fewer, larger blocks: the test is to be quick
    np.testing.assert_array_equal(pauses_of(waveform, block), pauses_of(waveform))


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 5000])
def test_silence_is_one_pause(samples):
    np.testing.assert_allclose(pauses_of(np.zeros(samples, np.float32)), [[0, samples / RATE]])


def test_what_is_forgotten_counts_no_more():
    quiet_then_loud = sound((1.0, 0.5), (0.5, 0.001), (0.3, 0.02), (0.2, 0.001))
    loudness = Loudness(RATE)
    loudness.feed(quiet_then_loud)
    assert loudness.pauses()[-1, 0] == pytest.approx(1.0)  # the rest is quiet beside it
    loudness.forget(1.2)
    np.testing.assert_allclose(loudness.pauses(), [[1.2, 1.5], [1.8, 2.0]], atol=1e-9)


# --- spans ---


def test_a_word_ends_where_the_next_begins_unless_there_is_a_pause():
    words = by_word(tokens_at("ab a b", [110, 120, 125, 140, 160, 180]))
    timing = Timing(inner_s=0.1, lead_s=0.05, trail_s=0.2)
    spans = word_spans(words, FRAME, timing, NOWHERE)
    middles = {frame: (frame + 0.5) * FRAME for frame in (110, 120, 140, 180)}
    first_cut = (middles[120] + middles[140]) / 2 - 0.1
    second_cut = (middles[140] + middles[180]) / 2 - 0.1
    expected = [
        [middles[110] - 0.05, first_cut], [first_cut, second_cut], [second_cut, middles[180] + 0.2]
    ]  # fmt: skip
    np.testing.assert_allclose(spans, expected)
    # Silence at both ends, and between the second word and the third.
    pauses = np.array([[0, 2.15], [2.9, 3.3], [3.8, 4.5]])
    spans = word_spans(words, FRAME, timing, pauses)
    np.testing.assert_allclose(spans, [[2.15, first_cut], [first_cut, 2.9], [3.3, 3.8]])


def test_a_pause_far_from_every_border_of_words_moves_none():
    words = by_word(tokens_at("a b", [50, 75, 100]))
    alone = word_spans(words, FRAME, Timing(0, 0, 0), NOWHERE)
    far = np.array([[0.0, 0.0], [3.0, 3.5], [60.0, 60.0]])
    np.testing.assert_array_equal(word_spans(words, FRAME, Timing(0, 0, 0), far), alone)


@st.composite
def recordings(draw):
    """Tokens, the recording's pauses and a model's habits, fitting or not."""
    text = draw(st.text("ab ", min_size=1, max_size=20))
    gaps = draw(st.lists(st.integers(1, 40), min_size=len(text), max_size=len(text)))
    frames = np.cumsum(gaps)
    duration = (frames[-1] + draw(st.integers(1, 50))) * FRAME
    edges = sorted(draw(st.lists(st.floats(0, 1), max_size=6, unique=True)))
    inner = [edge * duration for edge in edges[: len(edges) // 2 * 2]]
    pauses = np.array([0.0, *inner, duration])
    if len(pauses) % 2:
        pauses = np.append(pauses, duration)
    timing = Timing(*(draw(st.floats(-0.4, 0.4)) for _ in range(3)))
    return tokens_at(text, [int(frame) for frame in frames]), pauses.reshape(-1, 2), timing


@given(recordings())
def test_words_and_symbols_are_in_order_within_the_recording(found):
    tokens, pauses, timing = found
    heard = Hypothesis(ALPHABET.decode([t.label for t in tokens]), tokens, 0.9)
    duration = pauses[-1, 1]
    words = timed_words(heard, SPEC, duration, habits=Habits(timing), pauses=pauses)
    assert " ".join(word.text for word in words) == heard.text
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(0 <= time <= duration for time in times)
    for word in words:
        assert "".join(symbol.text for symbol in word.symbols) == word.text
        edges = [time for symbol in word.symbols for time in (symbol.start_s, symbol.end_s)]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == pytest.approx((word.start_s, word.end_s))


ALPHABET = Alphabet(SPEC.alphabet)


@given(recordings(), st.integers(0, 5000))
def test_a_later_recording_has_its_words_later(found, frames):
    tokens, pauses, timing = found
    later = tuple(
        Token(t.symbol, t.label, t.start_frame + frames, t.end_frame + frames, t.probability)
        for t in tokens
    )
    shift = frames * FRAME
    here = word_spans(by_word(tokens), FRAME, timing, pauses)
    there = word_spans(by_word(later), FRAME, timing, pauses + shift)
    # Nothing may begin before the recording, so what had to be cut there is not compared.
    np.testing.assert_allclose(there[here > 0] - shift, here[here > 0], atol=1e-6)


def test_a_stream_that_goes_on_has_the_times_of_one_that_begins():
    tokens = tokens_at("ab a", [10, 14, 20, 30])
    heard, pauses = Hypothesis("ab a", tokens, 0.9), np.array([[0.0, 0.2], [0.7, 2.0]])
    habits = Habits(Timing(0.02, 0.03, 0.04))
    begun = timed_words(heard, SPEC, 2.0, habits=habits, pauses=pauses)
    going = timed_words(heard, SPEC, 12.0, first_frame=500, habits=habits, pauses=pauses + 10)
    for one, other in zip(begun, going, strict=True):
        assert (other.start_s - 10, other.end_s - 10) == pytest.approx((one.start_s, one.end_s))


def test_a_stream_corrects_its_times_by_what_it_heard():
    """Symbols come 0.1 s after their words began; the second result begins anew."""
    spec = dataclasses.replace(
        SPEC,
        model=dataclasses.replace(SPEC.model, bidirectional=False),
        statistics=Statistics((0.0,) * 80, (1.0,) * 80),
    )
    waveform = sound((0.5, 0.0), (0.4, 0.3), (1.6, 0.0), (0.4, 0.3), (1.5, 0.0))
    best = np.zeros(spec.output_frames(len(waveform)), int)
    best[[round(0.6 / FRAME), round(2.6 / FRAME)]] = 2, 3
    log_probs = np.log(np.where(np.eye(4)[best] > 0, 0.97, 0.01)).astype(np.float32)
    received, given = 0, 0

    def step(piece, state, final):
        nonlocal received, given
        received += len(piece)
        frames = spec.model.complete_frames(spec.features.frames(received))
        before, given = given, len(log_probs) if final else max(given, frames)
        return log_probs[before:given], state

    reader = Reader(spec, habits=Habits(Timing(0.0, 0.1, 0.3)))
    stream = Stream(reader, {}, step, Endpoint(1.0))
    heard = [one for block in np.split(waveform, range(3000, len(waveform), 3000))
             for one in stream.feed(block) if one.is_final]  # fmt: skip
    heard.append(stream.finish())
    words = [word for one in heard for word in one.words]
    assert [word.text for word in words] == ["a", "b"]
    spans = [time for word in words for time in (word.start_s, word.end_s)]
    assert spans == pytest.approx([0.5, 0.9, 2.5, 2.9], abs=0.011)


def test_symbols_are_parted_in_the_middle_and_stretched_with_their_word():
    spans = symbol_spans(tokens_at("aba", [10, 14, 22]), FRAME, (1.0, 2.3))
    # Middles at 10.5, 14.5 and 22.5 frames, half a frame around: cuts after 2.5 and 8.5 of 13.
    np.testing.assert_allclose(spans, [[1.0, 1.25], [1.25, 1.85], [1.85, 2.3]])


# --- a model's habits ---


class Clockwork:
    """Writes "a" ``late`` seconds behind each click, and a space in the middle between two."""

    spec = SPEC
    alphabet = ALPHABET

    def __init__(self, late):
        self.late = late

    def log_probs(self, waveform):
        frames = SPEC.output_frames(len(waveform))
        best = np.zeros(frames, int)
        clicks = np.flatnonzero(waveform > 0.8) / RATE + self.late
        spikes = np.round(clicks / FRAME - 0.5).astype(int)
        best[(spikes[1:] + spikes[:-1]) // 2] = 1
        best[spikes] = 2
        return np.log(np.where(np.eye(3 + 1)[best] > 0, 0.97, 0.01)).astype(np.float32)


def clicked_words(count, seed, word_s=0.4):
    """Words of sound that each begin with a click, silence around them."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(round(rng.uniform(0.3, 0.5) * RATE))]
    for _ in range(count):
        word = 0.3 * rng.uniform(-1, 1, round(word_s * RATE))
        word[0] = 0.9
        parts.append(word)
    return np.concatenate([*parts, np.zeros(round(0.4 * RATE))]).astype(np.float32)


@pytest.mark.parametrize("late", [0.02, 0.1, 0.3])
def test_the_habit_of_a_model_is_found_without_word_times(late):
    utterances = [(clicked_words(3, seed), "a a a") for seed in range(12)]
    found = estimate(Clockwork(late), utterances)
    # A frame is 20 ms and a level covers 10.
    assert found.lead_s == pytest.approx(late, abs=0.015)
    assert found.trail_s == pytest.approx(0.4 - late, abs=0.015)
    assert found.inner_s == pytest.approx(late - 0.2, abs=0.015)
    assert (found.recordings, found.junctions) == (12, 17)


def test_a_card_gets_what_its_recordings_can_tell():
    from speechrnn.export.habits import habits
    from speechrnn.training.run import Recording

    recordings = [
        Recording(str(i), clicked_words(3, i), "a a a" if i > 5 else "a b a", "s")
        for i in range(40)
    ]
    entries = habits(Clockwork(0.1), recordings)
    assert entries["timing"]["recordings"] == 34
    # 120 words, six of them wrong, and one speaker.
    assert (entries["calibration"]["words"], entries["calibration"]["right"]) == (120, 114)
    assert Habits.of(entries).calibration.ece is None
    assert habits(Clockwork(0.1), recordings[6:15]) == {}
    assert list(habits(Clockwork(0.1), recordings[6:])) == ["timing"]


def test_transcripts_that_do_not_fit_tell_no_habit():
    fitting = [(clicked_words(3, seed), "a a a") for seed in range(LEAST - 1)]
    wrong = [(clicked_words(3, seed), text) for seed in range(20) for text in ("b b", "é", "")]
    silent = [(np.zeros(RATE, np.float32), "a")]
    with pytest.raises(ScoringError, match=f"{LEAST - 1} recordings .* {LEAST} are needed"):
        estimate(Clockwork(0.1), [*fitting, *wrong, *silent][: LEAST - 1 + 61])


@pytest.mark.parametrize(
    "entry", [{"inner_s": 0.1}, {"inner_s": 0, "lead_s": 0, "trail_s": 9}, {"x": 1}, [], 3, "late"]
)
def test_a_timing_of_another_kind_is_refused(entry):
    with pytest.raises(ModelError, match="timing is not one this version reads"):
        Habits.of({"timing": entry})
    timing = Timing(0.1, -0.2, 0.3, 4, 5)
    assert Timing.from_dict(timing.to_dict()) == timing


def test_a_file_with_a_malformed_card_is_refused(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(container.with_card(default_model(), timing={"inner_s": "late"}))
    with pytest.raises(ModelError, match="timing is not one this version reads"):
        Recognizer(path)


# --- against the truth ---

PHRASES = ("one two three", "b a d c o", "seven four nine eight", "m r x u", "five zero six two")


def lateness(recogniser, per_phrase, seed):
    """(words,): seconds by which words begin too late, by the alignment and espeak-ng's times."""
    pytest.importorskip("espeakng_loader", reason="the extra [synth] is not installed")
    from speechrnn.corpora import synth
    from speechrnn.corpora.phrases import Phrase

    phrases = [Phrase(text, "test") for text in PHRASES]
    found = []
    for take in synth.plan(
        phrases, synth.cast("en-us"), per_phrase=per_phrase, seed=seed, style=synth.Style()
    ):
        waveform, truth = synth.render_with_times(take)
        words = recogniser.align(waveform, take.text).words
        assert [word.text for word in words] == take.text.split()
        found += [word.start_s - start for word, (_, start) in zip(words, truth, strict=True)]
    return np.array(found)


@pytest.mark.parametrize(
    "per_phrase", [4, pytest.param(60, marks=pytest.mark.long)]
)  # 80 words and 1200
def test_words_of_synthetic_speech_begin_where_they_are_said(per_phrase):
    """80 and 200 ms are what is asked for; the shipped model has 32 and 82 on the quickstart's
    test phrases, and 53 and 133 without its timing."""
    recogniser = Recognizer(default_model())
    late = lateness(recogniser, per_phrase, seed=2)
    assert np.median(np.abs(late)) <= 0.050
    assert np.quantile(np.abs(late), 0.9) <= 0.130
    recogniser.habits = Habits()
    raw = lateness(recogniser, per_phrase, seed=2)
    assert np.median(np.abs(raw)) > np.median(np.abs(late)) + 0.005


# --- the commands' side of a recogniser ---


def test_align_is_transcribe_where_the_transcript_is_what_is_heard():
    recogniser = Recognizer(default_model(), reject=False)
    waveform = sound((0.3, 0.0), (0.4, 0.2), (0.3, 0.0), (0.5, 0.2), (0.4, 0.0))
    heard = recogniser.transcribe(waveform)
    assert heard.text
    aligned = recogniser.align(waveform, heard.text.upper())
    assert (aligned.text, aligned.duration_s) == (heard.text, heard.duration_s)
    if aligned.mismatch == 0:  # a space before or behind the text is in no transcript
        assert [(w.start_s, w.end_s) for w in aligned.words] == [
            (w.start_s, w.end_s) for w in heard.words
        ]
    other = recogniser.align(waveform, heard.text + " yes")
    assert other.mismatch > aligned.mismatch
    with pytest.raises(TranscriptError, match=r"é.*not in the alphabet"):
        recogniser.align(waveform, "é")


def test_true_transcripts_of_an4_fit_and_exchanged_ones_do_not():
    data = Path(os.environ.get("SPEECHRNN_DATA", ""), "an4", "manifest.tsv")
    if "SPEECHRNN_DATA" not in os.environ or not data.exists():
        pytest.skip("SPEECHRNN_DATA names no folder with an4/manifest.tsv")
    from speechrnn.corpora import manifest

    dev = [u for u in manifest.read(data) if u.split == "dev" and len(u.text) > 8][::4]
    recogniser = Recognizer(default_model())
    true = [recogniser.align(u.path, u.text).mismatch for u in dev]
    exchanged = [
        recogniser.align(u.path, other.text[: len(u.text)]).mismatch
        for u, other in zip(dev, dev[1:] + dev[:1], strict=True)
        if u.text != other.text
    ]
    # Of all 117: at 1 nat a symbol 6 % of the true ones stand above and none of the others below.
    assert np.mean(np.array(true) < 1) > 0.85
    assert min(exchanged) > 1
