"""Recurrent layers: drop-in for Keras's, with a faster loop on a CPU."""

from speechrnn.layers.gru import GRU
from speechrnn.layers.lstm import LSTM
from speechrnn.layers.simple_rnn import SimpleRNN

__all__ = ["GRU", "LSTM", "SimpleRNN"]
