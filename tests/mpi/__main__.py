"""Run cases by the ranks of ``mpiexec``, and print one line of JSON: by case and size of the group what was raised, by rank."""

import importlib
import itertools
import json
import sys
import time
import traceback

from mpi4py import MPI

from tests.mpi import plan
from tests.mpi.ranks import CASES

for subject in plan.SUBJECTS:
    importlib.import_module(f"tests.mpi.{subject}")


def wait_for(world):
    """Let ranks sleep until all are here, so that those who run a case have the cores."""
    request = world.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


def main(is_everyday):
    world, found = MPI.COMM_WORLD, []
    for name, groups in plan.chosen(is_everyday):
        error = None
        for begin, end in itertools.pairwise(itertools.accumulate(groups, initial=0)):
            # One group after the other: what the first one compiles the next ones find.
            is_mine = begin <= world.rank < end
            comm = world.Split(0 if is_mine else MPI.UNDEFINED)
            if is_mine:
                try:
                    CASES[name](comm)
                except BaseException:
                    error = f"rank {comm.rank} of {comm.size}: {traceback.format_exc()}"
            wait_for(world)
        found.append((name, groups, [each for each in world.allgather(error) if each]))
    if world.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1] == "everyday")
