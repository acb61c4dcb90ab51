from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import string
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechrnn.corpora import espeak, manifest, synth
from speechrnn.corpora.phrases import Phrase
from speechrnn.errors import AudioError, MissingExtra, UsageError

pytest.importorskip("espeakng_loader", reason="the extra [synth] is not installed")

STYLE = synth.Style()


def phonemes(text: str, voice: str) -> list[str]:
    """espeak-ng's own transcription, word by word, without stress and linking marks."""
    engine = espeak._engine()
    engine.select(voice)
    engine.api.espeak_SetParameter(espeak._WORD_GAP, 0, 0)  # what was spoken last may have had one
    transcribe = engine.api.espeak_TextToPhonemes
    transcribe.restype = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(text.encode())
    position = ctypes.c_void_p(ctypes.addressof(buffer))
    words = transcribe(ctypes.byref(position), 1, 0).decode().split()
    return [word.translate(str.maketrans("", "", "',;-")) for word in words]


# --- espeak ---


@pytest.mark.parametrize("accent", espeak.voices("en"))
def test_a_letter_in_a_spelled_word_sounds_as_the_letter_alone(accent):
    for letter in string.ascii_lowercase:
        alone = phonemes(letter, accent)
        spelled = phonemes(espeak.spoken_form(f"x {letter} b", accent), accent)
        assert spelled == [*phonemes("x", accent), *alone, *phonemes("b", accent)]


def test_each_word_has_the_time_at_which_it_begins():
    text = "b a d. Two  tickets, please"
    samples, rate, words = espeak.speak_with_times(text, "en-us", word_gap_ms=300)
    assert [word for word, _ in words] == text.split()
    times = [start for _, start in words]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert times[0] == 0 and times[-1] < len(samples) / rate
    # A gap of 0.3 s is heard before each word but the first; the sentence's end is longer.
    level = np.abs(samples)
    for start in times[1:]:
        quiet = level[round((start - 0.25) * rate) : round((start - 0.05) * rate)]
        assert quiet.max() < 0.02 * level.max()
        assert level[round(start * rate) : round((start + 0.2) * rate)].max() > 0.1 * level.max()


def test_words_spoken_as_one_have_one_beginning():
    _, _, words = espeak.speak_with_times("one of the two", "en-us")
    assert [start is None for _, start in words] == [False, False, True, False]
    assert espeak.speak_with_times("", "en-us")[2] == []


def test_a_takes_words_begin_within_its_speech():
    (take,) = synth.plan(
        [Phrase("turn on the light", "test")], {"test": ["en-us"]},
        per_phrase=1, seed=3, style=dataclasses.replace(STYLE, snr_db=(45, 45)),
    )  # fmt: skip
    waveform, words = synth.render_with_times(take)
    assert [word for word, _ in words] == take.text.split()
    loud = np.flatnonzero(np.abs(waveform) > 0.1 * np.abs(waveform).max()) / synth.SAMPLE_RATE
    # The closure of "t" is before its sound.
    assert words[0][1] == pytest.approx(take.lead_s, abs=1e-4)
    assert 0 <= loud[0] - words[0][1] < 0.1
    assert words[-1][1] < loud[-1] < words[-1][1] + 0.6


@pytest.mark.parametrize(
    ("text", "voice"), [("isn't a light on", "en-us"), ("a d'or", "en-gb"), ("x a b", "fr-fr")]
)
def test_articles_and_other_languages_are_spoken_as_they_stand(text, voice):
    assert espeak.spoken_form(text, voice) == text


def test_an_accent_is_the_one_asked_for():
    # espeak-ng itself does not find "en-gb" by name and keeps the voice it had.
    assert phonemes("z", "en-us") == ["zi:"]
    assert phonemes("z", "en-gb") == ["zEd"]


def test_speech_is_float_samples_that_do_not_clip():
    waveform, rate = espeak.speak("turn on the kitchen light", "en-us+f2")
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert 0.05 < np.abs(waveform).max() < 1
    assert 1 < len(waveform) / rate < 4


def test_a_higher_rate_speaks_faster():
    slow, fast = (len(espeak.speak("seven zero two", "en-us", rate_wpm=r)[0]) for r in (100, 200))
    assert fast < 0.7 * slow


@pytest.mark.parametrize(
    ("call", "found", "near"),
    [
        (lambda: espeak.voices("en-uk"), "en-uk", "en-us"),
        (lambda: espeak.speak("x", "en-gp"), "en-gp", "en-gb"),
        (lambda: espeak.speak("x", "en-us+f9"), "f9", "f5"),
        (lambda: espeak.speak("x", "en-us", pitch=100), "100", "0 to 99"),
        (lambda: espeak.speak("x", "en-us", rate_wpm=10), "10", "80 to 450"),
    ],
)
def test_a_wrong_voice_or_number_is_named_with_what_is_possible(call, found, near):
    with pytest.raises(UsageError) as error:
        call()
    assert found in str(error.value) and near in str(error.value)


def test_without_espeak_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"speechrnn\[synth\]"):
        espeak._Engine()


# --- the plan ---

VOICES = {"train": ["a", "b", "c"], "dev": ["d"], "test": ["e", "f"]}
phrase_lists = st.lists(
    st.builds(Phrase, st.text(min_size=1), st.sampled_from(["", "train", "dev", "test"])),
    max_size=30,
)


def plan(phrases, per_phrase=2, seed=0):
    return synth.plan(phrases, VOICES, per_phrase=per_phrase, seed=seed, style=STYLE)


@settings(max_examples=50, deadline=None)
@given(phrase_lists, phrase_lists, st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_a_plan_keeps_its_promises(phrases, more, per_phrase, seed):
    takes = plan(phrases, per_phrase, seed)
    assert takes == plan(phrases, per_phrase, seed)
    assert takes == plan(phrases + more, per_phrase, seed)[: len(takes)]
    assert len({take.utterance_id for take in takes}) == len(takes)
    assert [t.text for t in takes] == [p.text for p in phrases for _ in range(per_phrase)]
    for take, pinned in zip(takes, [p for p in phrases for _ in range(per_phrase)], strict=True):
        assert take.voice in VOICES[take.split]
        assert pinned.split in ("", take.split)
    for split, names in VOICES.items():
        spoken = Counter(take.voice for take in takes if take.split == split)
        counts = [spoken[name] for name in names]
        assert max(counts) - min(counts) <= 1


def test_one_in_ten_of_unpinned_utterances_is_for_dev_and_one_for_test():
    splits = Counter(take.split for take in plan([Phrase("x")] * 50))
    assert splits == {"train": 80, "dev": 10, "test": 10}


def test_every_drawn_number_is_in_its_range_and_differs_between_utterances():
    takes = plan([Phrase("x")] * 100)
    for name, limits in dataclasses.asdict(STYLE).items():
        for field in ("lead_s", "trail_s") if name == "silence_s" else (name,):
            drawn = [getattr(take, field) for take in takes]
            assert limits[0] <= min(drawn) and max(drawn) <= limits[1]
            assert len(set(drawn)) > 15  # of 31 whole numbers at least


def test_another_seed_draws_another_corpus():
    one, other = plan([Phrase("x")] * 20), plan([Phrase("x")] * 20, seed=1)
    assert not {take.file_name for take in one} & {take.file_name for take in other}


@pytest.mark.parametrize("language", ["en", "en-us", "el", "hi"])
def test_held_out_speakers_are_never_training_speakers_in_any_accent(language):
    speakers = {
        split: {voice.partition("+")[2] for voice in voices}
        for split, voices in synth.cast(language).items()
    }
    assert not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"]


def test_every_speaker_is_one_that_espeak_has():
    assert {name for names in synth.SPEAKERS.values() for name in names} <= {
        "",
        *espeak.variants(),
    }


@pytest.mark.parametrize(("name", "value"), [("per_phrase", 0), ("seed", -1)])
def test_numbers_out_of_range_are_usage_errors(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        synth.plan([Phrase("x")], VOICES, style=STYLE, **{"per_phrase": 1, "seed": 0, name: value})


# --- the sound ---


def test_a_take_has_the_level_silence_and_noise_it_was_planned_with():
    take = dataclasses.replace(
        plan([Phrase("turn on the light")])[0],
        voice="en-us",
        level_db=-26.0,
        snr_db=30.0,
        lead_s=0.4,
        trail_s=0.2,
    )
    wave = synth.render(take)
    assert wave.dtype == np.float32 and np.abs(wave).max() <= 1
    lead = wave[: int(0.4 * synth.SAMPLE_RATE)]
    speech = wave[len(lead) : -int(0.2 * synth.SAMPLE_RATE)]
    # 6,400 samples of noise estimate its power to 0.1 dB.
    assert 10 * np.log10(np.mean(lead**2)) == pytest.approx(-56, abs=0.5)
    assert 10 * np.log10(np.mean(speech**2)) == pytest.approx(-26, abs=0.5)


def test_a_shorter_vocal_tract_raises_the_frequencies():
    take = dataclasses.replace(plan([Phrase("e")])[0], voice="en-us", tilt=0.0, snr_db=100.0)

    def centroid(vocal_tract: float) -> float:
        wave = synth.render(dataclasses.replace(take, vocal_tract=vocal_tract))
        power = np.abs(np.fft.rfft(wave)) ** 2
        return float(np.average(np.linspace(0, 8000, len(power)), weights=power))

    # espeak-ng's output varies: this ratio by up to half a percent in 40 calls.
    assert centroid(1.06) / centroid(0.94) == pytest.approx(1.06 / 0.94, rel=0.02)


# --- the corpus ---

PHRASES = [
    Phrase("turn on the light"),
    Phrase("b a d", "train", "letters"),
    Phrase("b e d", "test", "letters"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    return synth.synthesise(PHRASES, out, per_phrase=5, seed=7, workers=1)


def test_a_corpus_is_what_its_manifest_says(corpus):
    utterances = list(manifest.read(corpus))
    assert [u.text for u in utterances] == [p.text for p in PHRASES for _ in range(5)]
    assert {u.split for u in utterances if u.text == "b e d"} == {"test"}
    for utterance in utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert utterance.speaker.startswith("en-us")
        assert utterance.utterance_id.startswith(
            "phrase-" if utterance.text.startswith("turn") else "letters-"
        )


def test_the_index_counts_and_hashes_the_corpus(corpus):
    index = json.loads((corpus.parent / "corpus.json").read_text(encoding="utf-8"))
    utterances = list(manifest.read(corpus))
    assert index["kind"] == "synthetic speech"
    assert index["seed"] == 7
    assert index["utterances"] == Counter(u.split for u in utterances)
    seconds = sum(len(soundfile.read(u.path)[0]) for u in utterances) / 16000
    assert sum(index["seconds"].values()) == pytest.approx(seconds, abs=0.2)  # rounded to 0.1
    digest = hashlib.sha256()
    for u in utterances:
        audio = hashlib.sha256(Path(u.path).read_bytes()).hexdigest()
        digest.update("\t".join((u.utterance_id, u.text, u.split, u.speaker, audio)).encode())
        digest.update(b"\n")
    assert index["corpus_sha256"] == digest.hexdigest()


def test_a_seed_gives_the_same_manifest_from_any_number_of_processes(corpus, tmp_path):
    calls = []
    again = synth.synthesise(
        PHRASES,
        tmp_path,
        per_phrase=5,
        seed=7,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert again.read_bytes() == corpus.read_bytes()
    assert calls == [(done, 15) for done in range(1, 16)]


def test_only_what_is_missing_is_spoken_again(tmp_path, monkeypatch):
    spoken = []
    speak = espeak.speak_with_times
    monkeypatch.setattr(
        espeak,
        "speak_with_times",
        lambda text, *a, **k: (spoken.append(text), speak(text, *a, **k))[1],
    )

    def run(phrases: list[Phrase]) -> list[str]:
        spoken.clear()
        synth.synthesise(phrases, tmp_path, per_phrase=2, workers=1)
        return list(spoken)

    assert len(run(PHRASES)) == 6
    assert run(PHRASES) == []
    next(iter((tmp_path / "audio").glob("letters-00002-*"))).unlink()
    assert run(PHRASES) == ["b a d"]
    assert run([*PHRASES, Phrase("one more")]) == ["one more"] * 2


@pytest.mark.parametrize(
    ("language", "texts"),
    [("el", ["άναψε το φως", "κλείσε την πόρτα"]), ("hi", ["बत्ती जलाओ", "दरवाज़ा बंद करो"])],
)
def test_greek_and_hindi_go_through(tmp_path, language, texts):
    path = synth.synthesise(
        [Phrase(text) for text in texts], tmp_path, language=language, per_phrase=3, workers=1
    )
    utterances = list(manifest.read(path))
    assert [u.text for u in utterances] == [text for text in texts for _ in range(3)]
    for utterance in utterances:
        waveform, _ = soundfile.read(utterance.path)
        assert 0.6 < len(waveform) / 16000 < 5
        assert utterance.speaker.partition("+")[0] == language


def test_a_phrase_without_words_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"'\.\.\.'"):
        synth.synthesise([Phrase("...")], tmp_path, per_phrase=1, workers=1)
    assert not (tmp_path / "manifest.tsv").exists()
