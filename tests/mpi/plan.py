"""Which cases are run by how many ranks: by those of one ``mpiexec``, in groups."""

import re
from pathlib import Path

RANKS = 4

# How these come together. Each case is run in the first way every day, and in one of the others; the rest is thorough.
GROUPS = [(1, 3), (2, 2), (4,)]

# Files with cases; those of programs are for all ranks.
SUBJECTS = ["owned", "replicated", "checkpoints", "disagreement", "minimization", "programs"]


def names(subject):
    """The cases of a file."""
    source = Path(__file__).with_name(f"{subject}.py").read_text(encoding="utf-8")
    return re.findall(r"^@case\ndef (\w+)", source, re.MULTILINE)


def chosen(is_everyday):
    """Pairs of a case and the sizes of the groups that run it."""
    cases = [name for subject in SUBJECTS[:-1] for name in names(subject)]
    pairs = [
        (name, groups)
        for i, name in enumerate(cases)
        for k, groups in enumerate(GROUPS)
        if (k == 0 or k == 1 + i % 2) == is_everyday
    ]
    return pairs + [(name, (RANKS,)) for name in names(SUBJECTS[-1]) if is_everyday]
