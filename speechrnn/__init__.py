"""Train a recurrent CTC speech recogniser on your own recordings; ship it as one file.

Importing this package imports neither TensorFlow nor Keras: what needs them says so when
it is called.
"""

__version__ = "0.1.0"
