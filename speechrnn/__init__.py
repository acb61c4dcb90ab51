"""Train a recurrent CTC speech recogniser on your own recordings; ship it as one file.

Importing this package imports neither TensorFlow nor Keras: what needs them says so when
it is called.
"""

import os

__version__ = "0.1.0"

# TensorFlow greets with a page of notes on stderr, which is for progress and problems here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
