"""What the page shows, and the examples, as programs of all ranks."""

import contextlib
import io
import os
import re
import runpy
import sys
from pathlib import Path

import fastopt
from tests.fences import fences
from tests.fresh import ROOT
from tests.mpi.ranks import case, path_of


@case
def what_the_pages_show_runs(comm):
    for page in ("mpi.md", "tutorials/simulation.md"):
        programs = [code for _, code in fences(ROOT / "docs" / page, r"\{code-block\} python")]
        assert programs
        exec("".join(programs), {})


def told(comm, name, *arguments):
    """What an example prints on the first rank; it draws a picture there."""
    picture = Path(path_of(comm)).with_name("picture.png")
    before, out = (sys.argv, fastopt.get_num_threads()), io.StringIO()
    sys.argv = [name, *arguments, "--out", str(picture)]
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(str(ROOT / "examples" / "mpi" / name), run_name="__main__")
    finally:
        sys.argv, _ = before
        fastopt.set_num_threads(before[1])
    assert comm.rank or os.path.getsize(picture) > 10_000
    return comm.bcast(out.getvalue())


@case
def the_digits_are_learned(comm):
    out = told(comm, "digits.py", "--epochs", "3")
    found = re.search(rf"{comm.size} ranks: (\d+).\d% of the test images", out)
    assert found, out
    assert int(found[1]) > 80, out


@case
def the_blur_is_taken_from_an_image(comm):
    out = told(comm, "inversion.py", "--size", "64", "--steps", "60")
    found = re.search(rf"{comm.size} ranks: mean error 0.0(\d+)", out)
    assert found, out
    assert int(found[1]) < 600, out
