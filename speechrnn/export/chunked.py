"""A model of both directions, given the chunks that let it stream. Its weights stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from speechrnn import model as network
from speechrnn.errors import UsageError
from speechrnn.evaluation.error_rates import ErrorRates, score
from speechrnn.runtime.tensorflow import KerasRecognizer
from speechrnn.training.run import Recording, Trained


def in_chunks(
    trained: Trained, chunk: int, right_context: int, recordings: Sequence[Recording] = ()
) -> Trained:
    """The same weights, reading ``chunk`` output frames at a time and ``right_context`` behind them
    (``layers.chunks``), instead of the whole recording.

    That costs accuracy, so the card's error rate is taken anew on ``recordings``; without any it
    is left out, since nobody knows it.

    Raises:
        UsageError: the model has one direction or normalises recordings as a whole, or a number is
            out of range.
    """
    if trained.spec.statistics is None:
        raise UsageError(
            "this model normalises a recording as a whole, so that chunks would not let it stream; "
            "train one with features.normalisation=global"
        )
    try:
        model_spec = dataclasses.replace(
            trained.spec.model, chunk=chunk, right_context=right_context
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if chunk < 1:
        raise UsageError(f"chunk is {chunk}; a chunk has at least 1 frame")
    spec = dataclasses.replace(trained.spec, model=model_spec)
    model = network.build(spec, seed=None)
    model.set_weights(trained.model.get_weights())
    card = {key: value for key, value in trained.card.items() if key != "dev"}
    chunked = Trained(model, spec, card)
    if recordings:
        card["dev"] = rates(chunked, recordings).summary()
    return chunked


def rates(trained: Trained, recordings: Sequence[Recording]) -> ErrorRates:
    """The error rates of a Keras model on a run's dev recordings."""
    recogniser = KerasRecognizer(trained.model, trained.spec, trained.card)
    return score(
        {r.utterance_id: r.text for r in recordings},
        {r.utterance_id: recogniser.transcribe(r.waveform).text for r in recordings},
        groups={r.utterance_id: r.speaker for r in recordings},
        rules=trained.spec.alphabet.rules,
    )
