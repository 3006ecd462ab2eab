"""Programs run by ``mpiexec`` are tested where that and mpi4py are installed."""

import importlib.util
import shutil

collect_ignore = [] if shutil.which("mpiexec") and importlib.util.find_spec("mpi4py") else ["test_mpi.py"]
