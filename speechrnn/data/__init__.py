"""Corpora become checked shards with an index; an index becomes batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechrnn.data.dataset import Batches, batches, recogniser_spec

__all__ = ["Batches", "batches", "recogniser_spec"]


def __getattr__(name: str) -> Any:
    # Late, because the processes that prepare utterances import this package without TensorFlow.
    if name in __all__:
        from speechrnn.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
