"""Utterances -> TFRecord shards, each with a sidecar that says what it was made from.

The shard is the unit of resumption: one whose sidecar and bytes match what is asked for is
never written again, and a stop at any moment leaves whole shards only.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from itertools import batched, islice
from pathlib import Path

import numpy as np

from speechrnn import audio
from speechrnn.corpora.manifest import Utterance
from speechrnn.data.index import Shard, sha256_of, write_atomically
from speechrnn.data.utterance import Prepared, Rejected, Settings, prepare_utterance
from speechrnn.errors import DataError
