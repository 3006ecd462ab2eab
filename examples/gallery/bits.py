"""Adam's second moment in fewer bits: rounded to nearest it stands still, rounded stochastically it follows.

``python examples/gallery/bits.py bits.png`` draws the picture.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import fastopt

STEPS, FADES_AT = 4000, 1500
FORMATS = {
    "float32": {},
    "bfloat16, nearest": {"state_dtype": {"v": "bfloat16"}},
    "bfloat16, stochastic": {"state_dtype": {"v": "bfloat16"}, "rounding": "stochastic"},
    "int8, stochastic": {"state_dtype": {"v": "int8"}, "rounding": "stochastic"},
}


def value(v):
    """The only number of a state, in whichever format: int8 has codes, and bfloat16 may come as its bits."""
    if hasattr(v, "numbers"):
        v = v.numbers()
    return float(((v.astype(np.uint32) << 16).view(np.float32) if v.dtype == np.uint16 else v)[0])


def second_moments(options, later, steps=STEPS):
    """Of a gradient that is 1, and from some step on another number."""
    optimizer = fastopt.Adam(np.zeros(1, np.float32), lr=0.0, **options)
    for t in range(steps):
        optimizer.step(np.full(1, 1.0 if t < FADES_AT else later, np.float32))
        yield value(optimizer.state["v"])


def draw(out, steps=STEPS):
    """Write the picture to a file."""
    figure, both = plt.subplots(1, 2, figsize=(7.2, 3), dpi=100, layout="constrained", sharey=True)
    for axes, (later, title) in zip(both, {1.0: "a gradient of 1", 0.1: "one that becomes 0.1"}.items(), strict=True):
        for (name, options), style in zip(FORMATS.items(), ("-", "--", "-", "-"), strict=True):
            axes.plot(list(second_moments(options, later, steps)), style, linewidth=1.2, label=name)
        axes.set(title=title, xlabel="step", ylim=(0, 1.4))
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("second moment of one element")
    both[1].legend(loc="upper right", fontsize=8, frameon=False)
    figure.savefig(out)
    plt.close(figure)


if __name__ == "__main__":
    draw(sys.argv[1])
