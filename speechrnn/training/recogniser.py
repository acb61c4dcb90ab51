"""The training of a recogniser: CTC on prepared utterances, scored by dev error rates."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from speechrnn import ctc
from speechrnn import model as network
from speechrnn.data.dataset import DEV, TRAIN, Batches, recogniser_spec
from speechrnn.data.index import Index
from speechrnn.data.prepare import REPORT_FILE, prepared
from speechrnn.decoding.greedy import greedy
from speechrnn.errors import PreparedDataError
from speechrnn.evaluation import error_rates
from speechrnn.model import output_frames
from speechrnn.recipe import Recipe
from speechrnn.specs import RecogniserSpec
from speechrnn.text import Alphabet
from speechrnn.training import distribution, initial, run
from speechrnn.training.display import Display
from speechrnn.training.distribution import Distribution
from speechrnn.training.loop import Trainer
from speechrnn.training.step import Batch, Learner, Score


def train_recogniser(recipe: Recipe, quiet: bool = False) -> dict[str, Any]:
    """``training.train``, of a recogniser; prepares the corpus first where that is not done."""
    here = distribution.start(recipe.training)
    with here.watched():
        return _train(recipe, quiet, here)


def _train(recipe: Recipe, quiet: bool, here: Distribution) -> dict[str, Any]:
    start = initial.read(recipe, here)
    index = _index(recipe, quiet, here)
    spec = recogniser_spec(recipe, index)
    if start:
        spec = start.continued(spec)
    train_set = Batches(recipe, spec, index, TRAIN)
    dev_set = Batches(recipe, spec, index, DEV)
    section = recipe.training
    with here.scope():
        model = network.build(spec, recipe.seed, section.precision)
    if start:
        start.give(model, spec, here)
    hours = index.seconds(TRAIN) / 3600
    card = {
        "corpus_sha256": index.corpus_sha256,
        "dev_fraction": recipe.data.dev_fraction,  # divides a manifest without splits again
        "train_hours": round(hours, 3),
        **({"init_from": start.provenance} if start else {}),
    }
    # What must not change between the stops of one run.
    sections = recipe.fingerprint("seed", "features", "text", "model")
    plan = (recipe.data.batch_seconds, section.sorted_first_epoch)
    identity = f"{sections} {index.corpus_sha256} {plan} {section.ema_decay > 0}"
    identity += train_set.augmenter.identity + (f" from {start.sha256}" if start else "")
    with Display(recipe.output, section, "s audio", quiet, here.is_chief) as display:
        learner = RecogniserLearner(model, spec, recipe, here)
        trainer = Trainer(recipe, spec, learner, train_set, dev_set, display, card, identity)
        if start:
            display.say(start.describe(spec))
        for message in train_set.augmenter.left_out:
            display.say(f"not mixed in: {message}")
        amounts = f"{hours:.2f} h", f"{index.seconds(DEV) / 3600:.2f} h"
        trainer.start(*amounts, index.rejected, see=f"; see {recipe.prepared / REPORT_FILE}")
    return here.from_chief(run.load(recipe.output).card if here.is_chief else None)


def _index(recipe: Recipe, quiet: bool, here: Distribution) -> Index:
    """The index of a corpus that the chief prepares, and the others wait for."""
    if here.is_chief:
        index = prepared(recipe, progress=not quiet)
        here.from_chief(index.corpus_sha256)
        return index
    print(
        f"worker {here.worker} waits until the chief has prepared {recipe.prepared}",
        file=sys.stderr,
        flush=True,
    )
    expected = here.from_chief(None)
    index = Index.load(recipe.prepared)
    if index.corpus_sha256 != expected:
        raise PreparedDataError(
            f"worker {here.worker} finds other utterances in {recipe.prepared} than the chief "
            "prepared; put data.prepared where all workers see the same files"
        )
    return index


class RecogniserLearner(Learner[Batches]):
    """A recogniser in training.

    Args:
        model: built by ``model.build``.
        spec: its description.
        recipe: its ``training`` section sets the optimiser.
        here: ``model`` was built in its scope.
    """

    def __init__(
        self,
        model: keras.Model,
        spec: RecogniserSpec,
        recipe: Recipe,
        here: Distribution | None = None,
    ):
        self.spec = spec
        parts: dict[str, Any] = {"subsampling": model.subsampling}
        parts |= {f"recurrent_{i + 1}": layer for i, layer in enumerate(model.recurrent)}
        parts["logits"] = model.logits
        signature = [
            tf.TensorSpec([None, None, spec.features.dimension], tf.float32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ]
        super().__init__(model, recipe.training, parts, signature, here)
        self._score = tf.function(self._posteriors, input_signature=signature)

    def inputs(self, batch: Batch) -> list[tf.Tensor]:
        return [batch["features"], batch["frames"], batch["labels"]]

    def loss(self, features: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tuple:
        logits = self.network(features, frames)
        losses = ctc.loss(logits, output_frames(frames, self.spec.model), labels)
        return tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32)

    def _posteriors(self, features: tf.Tensor, frames: tf.Tensor, labels: tf.Tensor) -> tuple:
        logits = self.model(features, frames, training=False)
        valid = output_frames(frames, self.spec.model)
        return tf.nn.log_softmax(logits), valid, ctc.loss(logits, valid, labels)

    def score(self, source: Batches, batches: Iterable[Batch]) -> Score:
        """Error rates of greedy decoding; between equal ones, as at the start where all are
        100 %, the loss decides."""
        hypotheses: dict[str, str] = {}
        losses: list[float] = []
        non_finite: list[str] = []
        for share in self.distribution.gather(self._heard(source, batches)):
            for name, (text, loss) in share.items():
                hypotheses[name] = text or ""
                if text is None:
                    non_finite.append(name)
                else:
                    losses.append(loss)
        references = {row.utterance_id: row.text for row in source.rows}
        speakers = {row.utterance_id: row.speaker for row in source.rows}
        groups = speakers if all(speakers.values()) else None
        rates = error_rates.score(
            references, hypotheses, groups=groups, rules=self.spec.alphabet.rules
        )
        mean_loss, (low, high) = float(np.mean(losses or [np.inf])), rates.wer_ci95
        return Score(
            loss=mean_loss,
            rank=[rates.wer, mean_loss],
            measures={"wer": rates.wer, "cer": rates.cer},
            line=f"WER {rates.wer:6.1%} ({low:.1%} to {high:.1%})  CER {rates.cer:6.1%}",
            examples=[
                [
                    ("reference ", references[name]),
                    ("hypothesis", hypotheses[name] or "(nothing)"),
                ]
                for name in references
            ],
            card=rates.summary(),
            non_finite=tuple(non_finite),
        )

    def _heard(
        self, source: Batches, batches: Iterable[Batch]
    ) -> dict[str, tuple[str | None, float]]:
        """Utterance id -> what was heard and its loss; None where either is not finite."""
        alphabet = Alphabet(self.spec.alphabet)
        found: dict[str, tuple[str | None, float]] = {}
        for batch in batches:
            log_probs, frames, loss = self._score(*self.inputs(batch))
            for i, name in enumerate(source.names(batch)):
                heard = log_probs[i, : frames[i]].numpy()
                sound = np.isfinite(loss[i]) and not np.isnan(heard).any()
                text = greedy(heard, alphabet).text if sound else None
                found[name] = text, float(loss[i])
        return found
