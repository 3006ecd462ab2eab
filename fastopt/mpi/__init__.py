"""Optimizers on several processes, by mpi4py."""

from fastopt.mpi.agreement import check_synced
from fastopt.mpi.checkpoints import load, save
from fastopt.mpi.owned import owned
from fastopt.mpi.replicated import Replicated, replicated

__all__ = ["Replicated", "check_synced", "load", "owned", "replicated", "save"]
