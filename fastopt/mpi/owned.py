"""Each rank owns a part of the parameters: only sums move."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fastopt.mpi.agreement import described, together
from fastopt.mpi.sums import InRankOrder
from fastopt.optimizer import Optimizer


def owned(optimizer: type[Optimizer], params: Any, comm: Any, **options: Any) -> Optimizer:
    """Make an optimizer of parameters of which each rank has a part of its own, as in a decomposed domain.

    All ranks take their steps together. A step exchanges some numbers if it needs a sum over all parameters: for `clip_norm`
    and `nonfinite`, and for what LAMB, DoG, Prodigy and the like measure; otherwise nothing. What belongs to a tensor (LAMB's
    norms, the share of `cautious`) is summed up over the parts that the ranks have of it: so all ranks have the same tensors
    then, some of them maybe empty. What steps exchange stays as it is now, unless all ranks call `check_synced` after a change.

    Parameters
    ----------
    optimizer : type
        A class of optimizers.
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        This rank's part.
    comm : mpi4py.MPI.Comm
        The ranks.
    **options
        Arguments of the class, the same on all ranks; arrays among them are those of the part.

    Returns
    -------
    Optimizer
        With ``reduce`` set to sums in the order of the ranks.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed here, or the ranks have different ones.
    RuntimeError
        If one is not allowed on another rank.
    """
    with together(comm) as same:
        made = optimizer(params, **options, **dict[str, Any](reduce=InRankOrder(comm)))
        same |= described(made)
    made._stepping.agree(made)
    _place_parts(made, comm)
    return made


def _place_parts(optimizer: Optimizer, comm: Any) -> None:
    """Give each part of a tensor the place after those of earlier ranks, so that stochastic rounding has other noise there."""
    parameters = optimizer._model.parameters
    of_ranks = comm.allgather([p.length for p in parameters])
    lengths = np.array(list(itertools.zip_longest(*of_ranks, fillvalue=0)))
    firsts = (lengths.cumsum() - lengths.ravel()).reshape(lengths.shape)[:, comm.rank]
    for p, first in zip(parameters, firsts.tolist(), strict=False):
        p.first = first
