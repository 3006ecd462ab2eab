"""The other libraries, one file each; none is imported before a contender starts."""

from bench.peers import deepspeed, keras, optax, pennylane, sklearn, thinc, torch

PEERS = (
    torch.FUSED,
    torch.FOREACH,
    torch.COMPILE,
    optax.CONTENDER,
    deepspeed.CONTENDER,
    keras.CONTENDER,
    thinc.CONTENDER,
    sklearn.CONTENDER,
    pennylane.CONTENDER,
)
