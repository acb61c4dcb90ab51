"""A character language model learns, resumes, is the same in NumPy, and helps to choose."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from conftest import write_recipe

from speechrnn import files, recipe
from speechrnn import model as network
from speechrnn.data import texts
from speechrnn.data.texts import TextBatches
from speechrnn.decoding import fusion
from speechrnn.decoding.fusion import NeuralLM, fl
from speechrnn.decoding.neural import CharacterLM
from speechrnn.decoding.rescoring import rescore
from speechrnn.errors import DataError, ModelError, RecipeError, TranscriptError
from speechrnn.language import EDGE, CharacterLMSpec, LanguageModelSpec
from speechrnn.specs import AlphabetSpec, TextRules
from speechrnn.text import Alphabet
from speechrnn.training import checkpoint, train
from speechrnn.training.display import history
from speechrnn.training.language_model import LanguageModelLearner

ABC = AlphabetSpec((" ", "a", "b", "c"))
CELLS = ("simple_rnn", "lstm", "gru", "clockwork", "depth_gated")


def sentences(count, seed):
    """Words of ab and ac: every other character can be foretold."""
    rng = np.random.default_rng(seed)

    def word():
        return "".join("a" + rng.choice(["b", "c"]) for _ in range(rng.integers(1, 4)))

    return [" ".join(word() for _ in range(rng.integers(1, 4))) for _ in range(count)]


def write_texts(folder, **changes):
    """A recipe on generated sentences, in files of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text("\n".join(sentences(150, 0)))
    (folder / "dev.txt").write_text("\n".join(sentences(30, 1)))
    tree = {
        "name": "letters",
        "output": str(folder / "run"),
        "data": {
            "train_texts": [str(folder / "train.txt")],
            "dev_texts": [str(folder / "dev.txt")],
            "batch_characters": 300,
        },
        "language_model": {"units": 24, "embedding": 8, "dropout": 0.1},
        "training": {"epochs": 8, "learning_rate": 0.02, "clip_norm": 5.0},
    }
    for section, values in changes.items():
        tree[section] = {**tree[section], **values}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """The run directory of a language model of generated sentences."""
    loaded = recipe.load_any(write_texts(tmp_path_factory.mktemp("letters")))
    train(loaded, quiet=True)
    return loaded.output


def language_model(alphabet=ABC, seed=0, **of_model):
    """A Keras model with random weights, zeros nowhere, and the same in NumPy."""
    spec = CharacterLMSpec(alphabet, LanguageModelSpec(**{"units": 8, "embedding": 5, **of_model}))
    model = network.build_language_model(spec, seed=None)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0, 0.6, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(weights)
    return model, CharacterLM(spec, weights, {})


def keras_score(model, text):
    """ln P of a text and its end, out of the Keras model's logits."""
    labels = [ABC.symbols.index(char) + 1 for char in text]
    logits = model(tf.constant([[EDGE, *labels]]), tf.constant([len(labels) + 1]))
    log_probs = tf.nn.log_softmax(logits)[0].numpy().astype(np.float64)
    return sum(row[label] for row, label in zip(log_probs, [*labels, EDGE], strict=True))


# Training


def test_it_learns_more_than_how_often_each_character_comes(letters):
    """The dev texts' own frequencies are the best that a model without context can know."""
    counts = Counter(char for text in sentences(30, 1) for char in [*text, "end"])
    total = sum(counts.values())
    unigram = -sum(n / total * math.log2(n / total) for n in counts.values())
    card = CharacterLM.load(letters).card
    assert card["dev"]["characters"] == total
    assert card["dev"]["bits_per_character"] < 0.75 * unigram
    lines = history(letters)
    assert [line["epoch"] for line in lines] == list(range(8))
    assert card["dev"]["bits_per_character"] == min(line["bits_per_character"] for line in lines)
    assert all(line["characters_per_second"] > 0 for line in lines)


def test_the_saved_model_in_numpy_is_as_good_as_the_one_that_was_scored(letters):
    kept = CharacterLM.load(letters)
    # Both sum the same terms, in another order, in float32.
    assert kept.bits_per_character(sentences(30, 1)) == pytest.approx(
        kept.card["dev"]["bits_per_character"], rel=1e-5
    )
    assert kept.card["dev"]["perplexity"] == pytest.approx(
        2 ** kept.card["dev"]["bits_per_character"]
    )


def test_a_run_stopped_inside_an_epoch_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    """Same batches, same dropout; the weights may differ by the order of float32 sums."""
    ends = []
    for name, seconds in (("whole", 60), ("stopped", 1e-9)):
        quick = dict(epochs=2, checkpoint_every_seconds=seconds, ema_decay=0.9)
        loaded = recipe.load_any(write_texts(tmp_path / name, training={**TRAINING, **quick}))
        if name == "stopped":
            with monkeypatch.context() as patch:
                steps, step = itertools.count(), LanguageModelLearner.step

                def stop(*arguments, steps=steps, step=step):
                    if next(steps) == 7:
                        raise KeyboardInterrupt
                    return step(*arguments)

                patch.setattr(LanguageModelLearner, "step", stop)
                with pytest.raises(KeyboardInterrupt):
                    train(loaded, quiet=True)
            _, state = checkpoint.load_newest(loaded.output / "checkpoints")
            assert state["step"] == 7 and state["batch"] > 0
        train(loaded, quiet=True)
        ends.append(checkpoint.load_newest(loaded.output / "checkpoints"))
    (whole, at), (stopped, then) = ends
    assert at["step"] == then["step"] > 8
    for group in ("model", "average"):
        for a, b in zip(whole[group], stopped[group], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


TRAINING = {"learning_rate": 0.02, "clip_norm": 5.0}


@pytest.mark.parametrize("change", ["language_model.units=12", "seed=7", "data.alphabet=cba x"])
def test_a_run_that_is_not_this_one_is_not_gone_on_with(letters, change):
    loaded = recipe.load_any(letters / "recipe.yaml", [change])
    with pytest.raises(RecipeError, match="another seed, model"):
        train(loaded, quiet=True)


# Texts and batches


def batches_of(folder, **changes):
    loaded = recipe.load_any(write_texts(folder, **changes))
    found = texts.read(loaded)
    spec = CharacterLMSpec(found.alphabet.spec, loaded.language_model)
    return TextBatches(loaded, spec, found.train), found


def test_a_batch_is_each_text_behind_an_edge_and_before_one(tmp_path):
    source, found = batches_of(tmp_path)
    seen = []
    for batch in source.epochs(3, 4):
        for i, row in enumerate(batch["texts"]):
            n = batch["lengths"][i]
            labels = found.alphabet.encode(found.train[row])
            assert batch["inputs"][i, :n].tolist() == [EDGE, *labels]
            assert batch["targets"][i, :n].tolist() == [*labels, EDGE]
            assert not batch["inputs"][i, n:].any() and not batch["targets"][i, n:].any()
        assert batch["inputs"].size <= 300
        seen += batch["texts"].tolist()
    assert sorted(seen) == list(range(len(found.train)))


def test_batches_go_on_from_any_place_and_differ_between_epochs(tmp_path):
    source, _ = batches_of(tmp_path)
    whole = [*source.epochs(1, 3)]
    first = len(source.plan(1))
    rest = [*source.epochs(1, 3, skip=first - 2)]
    assert len(rest) == len(whole) - first + 2
    for a, b in zip(whole[first - 2 :], rest, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    ends = [[batch["texts"].tolist() for batch in part] for part in (whole[:first], whole[first:])]
    assert ends[0] != ends[1]


def test_what_cannot_be_learned_is_left_out_and_counted(tmp_path):
    write_texts(tmp_path)
    (tmp_path / "odd.txt").write_text("AB ab!\n\nxyz\n" + "ab" * 30 + "\n", encoding="utf-8-sig")
    odd = {"train_texts": [str(tmp_path / "odd.txt")], "alphabet": "abc ", "max_characters": 50}
    dev = {"dev_texts": [str(tmp_path / "dev.txt")]}
    _, found = batches_of(tmp_path, data={**odd, **dev})
    assert found.train == ("ab ab",)
    assert found.left_out == {"empty_transcript": 1, "unknown_character": 1, "too_long": 1}


def test_without_dev_texts_some_are_drawn_and_no_text_is_on_both_sides(tmp_path):
    _, found = batches_of(tmp_path, data={"dev_texts": [], "dev_fraction": 0.2})
    assert not set(found.train) & set(found.dev)
    assert sorted([*found.train, *found.dev]) == sorted(sentences(150, 0))
    assert 0.05 < len(found.dev) / 150 < 0.4


def test_a_manifest_gives_its_transcripts_by_split(tmp_path, whistles):
    changes = {"manifest": str(whistles), "train_texts": [], "dev_texts": []}
    _, found = batches_of(tmp_path, data=changes)
    assert (len(found.train), len(found.dev)) == (60, 12)
    assert found.alphabet.spec.symbols == (" ", "a", "b", "c", "d")


def test_texts_that_are_missing_or_leave_nothing_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt"):
        batches_of(tmp_path, data={"dev_texts": ["nothing.txt"]})
    with pytest.raises(DataError, match=r"none for train.*unknown_character"):
        batches_of(tmp_path, data={"alphabet": "xyz"})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("language_model.unit=3", r"did you mean language_model\.units"),
        ("language_model.units=0", "units is 0"),
        ("language_model.embedding=0", "embedding is 0"),
        ("data.train_texts=[]", "no texts to train on"),
        ("data.batch_seconds=3", r"did you mean data\.batch_characters"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, override, message):
    with pytest.raises(RecipeError, match=message):
        recipe.load_any(write_texts(tmp_path), [override])


# In NumPy


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_numpy_gives_what_keras_gives(cell, layers):
    options = {"cell": cell, "layers": layers, "layer_norm": layers == 2, "periods": (1, 2)}
    model, lm = language_model(**options)
    found = ["", "a", "abc cab", "ccc", "b a b a b"]
    expected = [keras_score(model, text) for text in found]
    # Sums of up to ten float32 logarithms.
    np.testing.assert_allclose(lm.scores(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_of_many_is_the_step_of_each(cell):
    _, lm = language_model(cell=cell, layers=2, periods=(1, 2))
    _, a = lm.step(lm.start(), [EDGE])
    _, b = lm.step(a, [3])
    states = np.concatenate([lm.start(), b, a])
    log_probs, after = lm.step(states, [EDGE, 1, 4])
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-5)
    for i, label in enumerate([EDGE, 1, 4]):
        alone, state = lm.step(states[i : i + 1], [label])
        np.testing.assert_allclose(log_probs[i], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after[i], state[0], rtol=1e-5, atol=1e-6)


def test_steps_add_up_to_the_score_of_the_text():
    _, lm = language_model()
    states, total = lm.start(), 0.0
    labels = [EDGE, *lm.alphabet.encode("cab a")]
    for label, following in zip(labels, [*labels[1:], EDGE], strict=True):
        log_probs, states = lm.step(states, [label])
        total += float(log_probs[0, following])
    assert lm.score(" CAB  a ") == pytest.approx(total, rel=1e-5)  # normalised first


def test_more_texts_than_are_read_side_by_side_keep_their_order():
    _, lm = language_model()
    many = sentences(300, 5)
    np.testing.assert_allclose(lm.scores(many), [lm.score(t) for t in many], rtol=1e-5)
    assert lm.scores([]).shape == (0,)


def test_an_unknown_character_is_named(letters):
    with pytest.raises(TranscriptError, match=r"'x' \(U\+0078\)"):
        CharacterLM.load(letters).score("abx")


# What a folder holds


def test_a_damaged_model_and_one_of_another_kind_are_refused(letters, trained, tmp_path):
    with pytest.raises(ModelError, match="holds a recogniser, and a language model is needed"):
        CharacterLM.load(trained)
    with pytest.raises(ModelError, match="holds no trained model"):
        CharacterLM.load(tmp_path)
    for path in [letters / "model.json", *letters.glob("weights-*.npz")]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    description = json.loads((tmp_path / "model.json").read_text())
    description["spec"]["model"]["layers"] = 2
    (tmp_path / "model.json").write_bytes(files.sealed(description))
    with pytest.raises(ModelError, match="another network"):
        CharacterLM.load(tmp_path)
    description["spec"]["model"]["surprise"] = 2
    (tmp_path / "model.json").write_bytes(files.sealed(description))
    with pytest.raises(ModelError, match="description"):
        CharacterLM.load(tmp_path)
    [weights] = tmp_path.glob("weights-*.npz")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="sha256"):
        CharacterLM.load(tmp_path)


@pytest.mark.parametrize("command", ["evaluate", "export", "transcribe", "benchmark"])
def test_a_language_model_is_no_recogniser(speechrnn, letters, whistles, tmp_path, command):
    sound = next(whistles.parent.glob("*.wav"))
    arguments = {
        "evaluate": [letters, whistles],
        "export": [letters, tmp_path / "out.tflite"],
        "transcribe": [sound, "--model", letters],
        "benchmark": [letters, "--runs", 1],
    }
    if command == "benchmark":
        from speechrnn.runtime import open_model

        with pytest.raises(ModelError, match="hears nothing"):  # as its process would
            open_model(letters)
        return
    code, out, err = speechrnn(command, *arguments[command])
    assert (code, out) == (4, "")
    assert "holds a language model, which hears nothing" in err


def test_info_tells_what_a_language_model_is(speechrnn, letters):
    code, out, _ = speechrnn("info", letters, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["kind"], facts["alphabet"], facts["units"]) == ("language model", " abc", 24)
    assert facts["dev"]["bits_per_character"] > 0


def test_the_commands_tell_a_language_models_recipe(speechrnn, letters, monkeypatch):
    monkeypatch.setattr("speechrnn.training.threads.configure", lambda threads: None)
    code, out, _ = speechrnn("train", letters / "recipe.yaml", "--quiet")
    bits = CharacterLM.load(letters).card["dev"]["bits_per_character"]
    assert code == 0
    assert out.startswith(f"{letters}: dev {bits:.3f} bits a character after epoch ")
    code, _, err = speechrnn("prepare", letters / "recipe.yaml")
    assert code == 2
    assert "describes a language model" in err


# Rescoring


class Preferring:
    """A scorer with an opinion."""

    def __init__(self, **log_probs):
        self.log_probs = log_probs

    def scores(self, texts):
        return np.array([self.log_probs[text] for text in texts])


def test_rescoring_weighs_the_two_models_and_the_length():
    lm = Preferring(ab=-8.0, a=-2.0, abc=-3.0)
    n_best = [("ab", -1.0), ("a", -2.0), ("abc", -3.0)]
    assert rescore(n_best, lm, 0.0) == n_best
    assert rescore(n_best, lm, 0.5) == [("a", -3.0), ("abc", -4.5), ("ab", -5.0)]
    assert rescore(n_best, lm, 0.5, 1.0) == [("abc", -1.5), ("a", -2.0), ("ab", -3.0)]


def test_rescoring_keeps_the_order_of_equals_and_takes_an_empty_list():
    lm = Preferring(a=-2.0, b=-2.0)
    assert [text for text, _ in rescore([("b", -1.0), ("a", -1.0)], lm, 3.0)] == ["b", "a"]
    assert rescore([], lm, 1.0) == []


def test_rescoring_by_a_trained_model_prefers_what_it_has_read(letters):
    lm = CharacterLM.load(letters)
    found = rescore([("aa bb", 0.0), ("bb ca", 0.0), ("ab ac", 0.0)], lm, 1.0)
    assert found[0] == ("ab ac", pytest.approx(lm.score("ab ac"), rel=1e-5))
    with pytest.raises(TranscriptError):
        rescore([("ab", 0.0), ("xy", 0.0)], lm, 1.0)


# Within the beam search

SYMBOLS = ("c", "b", "a", " ")  # a recogniser's, in another order than the language model's


@pytest.fixture
def fused(letters):
    return NeuralLM(letters, Alphabet(AlphabetSpec(SYMBOLS)))


@pytest.mark.parametrize("written", ["", "ab", "abc a", " ab", "ab ", "  ab   c  ", "   "])
def test_tokens_add_up_to_the_score_of_the_text_they_decode_to(fused, written):
    alphabet = Alphabet(AlphabetSpec(SYMBOLS))
    labels = [SYMBOLS.index(char) + 1 for char in written]
    for _ in range(2):  # the second time out of what is kept
        state, total = fused.start(False), 0.0
        for label in labels:
            state, score = fused.score(state, label)
            total += score
        total += fused.finish(state)[1]
        assert total == pytest.approx(fused.model.score(alphabet.decode(labels)), rel=1e-5)


def best_by_hand(log_probs, lm, weight, allowed=None):
    """Every path of labels, written out: the best score of each text, and the best text."""
    alphabet, found = Alphabet(AlphabetSpec(SYMBOLS)), {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        labels = [label for label, _ in itertools.groupby(path) if label]
        text = alphabet.decode(labels)
        if allowed is None or all(word in allowed for word in text.split()):
            acoustic = sum(float(row[label]) for row, label in zip(log_probs, path, strict=True))
            found[text] = max(found.get(text, -math.inf), acoustic)
    language = dict(zip(found, lm.scores(list(found)), strict=True))
    scores = {text: acoustic + weight * language[text] for text, acoustic in found.items()}
    best = max(scores, key=scores.get)
    return best, scores[best]


def posteriors(frames, seed):
    logits = np.random.default_rng(seed).normal(0, 1.5, (frames, len(SYMBOLS) + 1))
    return np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def decoded(result):
    labels = [label for label, _ in itertools.groupby(result.tokens[1:-1]) if label > 0]
    return Alphabet(AlphabetSpec(SYMBOLS)).decode(labels)


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_the_best_of_all_texts(fused, seed):
    """Five frames of five labels, in a beam that holds all of their 3,125 paths."""
    log_probs = posteriors(5, seed)
    options = fl.LexiconFreeDecoderOptions(
        beam_size=4000,
        beam_size_token=5,
        beam_threshold=1e4,
        lm_weight=0.7,
        sil_score=0.0,
        log_add=False,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconFreeDecoder(options, fused, SYMBOLS.index(" ") + 1, 0, [])
    result = decoder.decode(log_probs.ctypes.data, *log_probs.shape)[0]
    text, score = best_by_hand(log_probs, fused.model, 0.7)
    assert decoded(result) == text
    assert result.score == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_search_with_a_lexicon_finds_the_best_of_its_texts(fused, seed):
    log_probs = posteriors(5, seed)
    space, lexicon = SYMBOLS.index(" ") + 1, ["ab", "c", "ba"]
    ended = np.full((6, 5), -1e4, np.float32)  # a last frame of nothing but the separator
    ended[:5], ended[5, space] = log_probs, 0
    trie = fl.Trie(5, space)
    for index, word in enumerate(lexicon):
        trie.insert([*(SYMBOLS.index(char) + 1 for char in word), space], index, 0.0)
    options = fl.LexiconDecoderOptions(
        beam_size=4000,
        beam_size_token=5,
        beam_threshold=1e6,
        lm_weight=0.7,
        word_score=0.0,
        unk_score=-math.inf,
        sil_score=0.0,
        log_add=False,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconDecoder(options, trie, fused, space, 0, len(lexicon), [], True)
    result = decoder.decode(ended.ctypes.data, *ended.shape)[0]
    text, score = best_by_hand(log_probs, fused.model, 0.7, allowed=lexicon)
    assert decoded(result) == text
    assert result.score == pytest.approx(score, rel=1e-4)


def searched(lm, log_probs, beam):
    """The best text of a search as it is used: ten hypotheses or so, the best symbols."""
    options = fl.LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=3,
        beam_threshold=12.0,
        lm_weight=0.7,
        sil_score=0.0,
        log_add=False,
        criterion_type=fl.CriterionType.CTC,
    )
    lm.reset()
    decoder = fl.LexiconFreeDecoder(options, lm, SYMBOLS.index(" ") + 1, 0, [])
    result = decoder.decode(log_probs.ctypes.data, *log_probs.shape)[0]
    return decoded(result), result.score


def test_memory_does_not_grow_with_length_and_results_stay(fused, monkeypatch):
    log_probs = posteriors(600, 9)
    whole = searched(fused, log_probs, 8)
    without_limit = len(fused._recent)
    monkeypatch.setattr(fusion, "REMEMBERED", 200)
    assert searched(fused, log_probs, 8) == whole
    # Each half passes its limit by no more than a frame adds: beam x symbols.
    assert len(fused._recent) + len(fused._older) < 2 * (200 + 24) < without_limit / 4
    fused.reset()
    assert not fused._recent and not fused._older


def test_of_what_is_forgotten_a_text_begins_anew(fused):
    state, _ = fused.score(fused.start(False), 3)
    fused.reset()
    assert fused.score(state, 2)[1] == fused.score(fused.start(False), 2)[1]


@pytest.mark.parametrize("symbols", [("a", "b", "é"), ("A",)])
def test_a_recogniser_of_other_characters_is_refused(letters, symbols):
    alphabet = Alphabet(AlphabetSpec(symbols, TextRules(case="keep")))
    with pytest.raises(ModelError, match="knows no"):
        NeuralLM(letters, alphabet)
    with pytest.raises(ModelError, match="no trained model"):
        NeuralLM(letters.parent, alphabet)


def test_a_recognisers_recipe_is_still_one(tmp_path, whistles):
    assert isinstance(recipe.load_any(write_recipe(tmp_path, whistles)), recipe.Recipe)
