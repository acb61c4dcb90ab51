"""Recurrent layers for Keras: five cells, one fast scan, and the parts of a cell of one's own."""

from speechrnn.layers import chunks
from speechrnn.layers.clockwork import ClockworkCell, ClockworkRNN
from speechrnn.layers.depth_gated import DepthGatedCell, DepthGatedLSTM, split_cells
from speechrnn.layers.gru import GRU
from speechrnn.layers.lookahead import Lookahead
from speechrnn.layers.lstm import LSTM
from speechrnn.layers.rnn import CellLayer, FastRecurrence, RecurrentCell
from speechrnn.layers.scan import Equations
from speechrnn.layers.simple_rnn import SimpleRNN

__all__ = [
    "GRU",
    "LSTM",
    "CellLayer",
    "ClockworkCell",
    "ClockworkRNN",
    "DepthGatedCell",
    "DepthGatedLSTM",
    "Equations",
    "FastRecurrence",
    "Lookahead",
    "RecurrentCell",
    "SimpleRNN",
    "chunks",
    "split_cells",
]
