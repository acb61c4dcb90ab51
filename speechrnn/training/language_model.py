"""The training of a character language model: cross-entropy on texts, scored in bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from speechrnn import model as network
from speechrnn.data import texts
from speechrnn.data.texts import TextBatches
from speechrnn.files import read_run
from speechrnn.language import CharacterLMSpec
from speechrnn.recipe import LanguageRecipe
from speechrnn.training import distribution
from speechrnn.training.display import Display
from speechrnn.training.distribution import Distribution
from speechrnn.training.loop import Trainer
from speechrnn.training.step import Batch, Learner, Score

LARGEST_EXPONENT = 700.0  # of e, for a float64


def train_language_model(recipe: LanguageRecipe, quiet: bool = False) -> dict[str, Any]:
    """``training.train``, of a character language model."""
    here = distribution.start(recipe.training)
    with here.watched():
        return _train(recipe, quiet, here)


def _train(recipe: LanguageRecipe, quiet: bool, here: Distribution) -> dict[str, Any]:
    found = texts.read(recipe)
    spec = CharacterLMSpec(found.alphabet.spec, recipe.language_model)
    train_set = TextBatches(recipe, spec, found.train)
    dev_set = TextBatches(recipe, spec, found.dev)
    section = recipe.training
    with here.scope():
        model = network.build_language_model(spec, recipe.seed, section.precision)
    count = {split: sum(map(len, getattr(found, split))) for split in (texts.TRAIN, texts.DEV)}
    card = {"texts_sha256": found.sha256, "train_characters": count[texts.TRAIN]}
    # What must not change between the stops of one run.
    sections = recipe.fingerprint("seed", "text", "language_model")
    plan = (recipe.data.batch_characters, section.sorted_first_epoch)
    identity = f"{sections} {found.sha256} {plan} {section.ema_decay > 0}"
    with Display(recipe.output, section, "characters", quiet, here.is_chief) as display:
        learner = LanguageModelLearner(model, spec, recipe, here)
        trainer = Trainer(recipe, spec, learner, train_set, dev_set, display, card, identity)
        amounts = [f"{count[split]:,} characters" for split in (texts.TRAIN, texts.DEV)]
        trainer.start(amounts[0], amounts[1], found.left_out, see="")
    return here.from_chief(read_run(recipe.output)[0]["card"] if here.is_chief else None)


class LanguageModelLearner(Learner[TextBatches]):
    """A character language model in training.

    Args:
        model: built by ``model.build_language_model``.
        spec: its description.
        recipe: its ``training`` section sets the optimiser.
        here: ``model`` was built in its scope.
    """

    def __init__(
        self,
        model: network.CharacterModel,
        spec: CharacterLMSpec,
        recipe: LanguageRecipe,
        here: Distribution | None = None,
    ):
        self.spec = spec
        parts: dict[str, Any] = {"embedding": model.embedding}
        parts |= {f"recurrent_{i + 1}": layer for i, layer in enumerate(model.recurrent)}
        parts["logits"] = model.logits
        labels = tf.TensorSpec([None, None], tf.int32)
        signature = [labels, tf.TensorSpec([None], tf.int32), labels]
        super().__init__(model, recipe.training, parts, signature, here)
        self._score = tf.function(
            functools.partial(self._nats, training=False), input_signature=signature
        )

    def inputs(self, batch: Batch) -> list[np.ndarray]:
        return [batch["inputs"], batch["lengths"], batch["targets"]]

    def loss(self, inputs: tf.Tensor, lengths: tf.Tensor, targets: tf.Tensor) -> tuple:
        """Counted by characters, so that long texts count for more."""
        nats = self._nats(inputs, lengths, targets, training=True)
        return tf.reduce_sum(nats), tf.cast(tf.reduce_sum(lengths), tf.float32)

    def _nats(
        self, inputs: tf.Tensor, lengths: tf.Tensor, targets: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """(batch,) -ln P of each text and its end."""
        if training:
            logits = self.network(inputs, lengths)[:, : tf.shape(targets)[1]]
        else:
            logits = self.model(inputs, lengths, training=False)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(nats * tf.sequence_mask(lengths, tf.shape(nats)[1], tf.float32), 1)

    def score(self, source: TextBatches, batches: Iterable[Batch]) -> Score:
        """Bits a character, a text's end being one of its characters; the hardest texts."""
        rows: list[tuple[float, int, str]] = []
        for batch in batches:
            nats = self._score(*self.inputs(batch)).numpy().astype(np.float64)
            lengths = batch["lengths"].tolist()
            rows += zip(
                nats.tolist(), lengths, [source.texts[i] for i in batch["texts"]], strict=True
            )
        rows = [row for share in self.distribution.gather(rows) for row in share]
        non_finite = tuple(repr(text) for nats, _, text in rows if not math.isfinite(nats))
        characters = sum(length for _, length, _ in rows)
        # What is no number is the worst there is: any other model is better.
        loss = math.inf if non_finite else sum(nats for nats, _, _ in rows) / characters
        bits = loss / math.log(2)
        perplexity = math.exp(loss) if loss < LARGEST_EXPONENT else math.inf
        rows.sort(key=lambda row: row[0] / row[1], reverse=True)
        measures = {"bits_per_character": bits, "perplexity": perplexity}
        return Score(
            loss=loss,
            rank=[loss],
            measures=measures,
            line=f"{bits:.3f} bits a character (perplexity {perplexity:.2f})",
            examples=[
                [(f"{nats / length / math.log(2):5.2f} bits", text)] for nats, length, text in rows
            ],
            card={**measures, "texts": len(rows), "characters": characters},
            non_finite=non_finite,
        )
