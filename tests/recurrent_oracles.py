"""The papers' recurrent cells, one frame after the other in NumPy's float64, for one utterance."""

import numpy as np


def clockwork(x, weights, periods):
    """Koutnik et al. 2014, equations 1 and 2: (frames, inputs) -> (frames, units).

    One matrix W_H for all modules, block-triangular; the rows of inactive modules are left out.
    """
    kernel, bias, *blocks = (w.astype(np.float64) for w in weights)
    units = len(bias)
    width = units // len(periods)
    w_h = np.zeros((units, units))
    for i, block in enumerate(blocks):
        w_h[i * width :, i * width : (i + 1) * width] = block
    y, outputs = np.zeros(units), []
    for t, frame in enumerate(x.astype(np.float64)):
        new = np.tanh(y @ w_h + frame @ kernel + bias)
        active = np.repeat([t % period == 0 for period in periods], width)
        y = np.where(active, new, y)
        outputs.append(y)
    return np.array(outputs).reshape(len(x), units)


def depth_gated(x, kernel, recurrent, bias, peepholes, lower):
    """Yao et al. 2015, equations 1 to 11: (frames, inputs) -> h and c, each (frames, units).

    ``lower`` (frames, units) is the memory cell of the layer below; None: x is projected.
    """

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    units = len(recurrent)
    w_xi, w_xf, w_xc, w_xo, w_xd, *w_lower = np.split(kernel, kernel.shape[1] // units, axis=1)
    b_i, b_f, b_c, b_o, b_d, *b_lower = np.split(bias, len(bias) // units)
    w_hi, w_hf, w_hc, w_ho = np.split(recurrent, 4, axis=1)
    w_ci, w_cf, w_co, w_cd, w_ld = peepholes
    h, c = np.zeros(units), np.zeros(units)
    hs, cs = [], []
    for t, frame in enumerate(x):
        below = frame @ w_lower[0] + b_lower[0] if lower is None else lower[t]
        i = sigmoid(frame @ w_xi + h @ w_hi + w_ci * c + b_i)
        f = sigmoid(frame @ w_xf + h @ w_hf + w_cf * c + b_f)
        d = sigmoid(b_d + frame @ w_xd + w_cd * c + w_ld * below)
        c = d * below + f * c + i * np.tanh(frame @ w_xc + h @ w_hc + b_c)
        o = sigmoid(frame @ w_xo + h @ w_ho + w_co * c + b_o)
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.reshape(hs, (len(x), units)), np.reshape(cs, (len(x), units))
