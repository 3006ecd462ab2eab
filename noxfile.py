"""The tests on every supported interpreter that is present: ``nox``.

The peers are left out here: torch and jax don't exist for every interpreter. The continuous integration runs their tests.
"""

import nox


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run the tests that need no peer."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", "-m", "not peers", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run them with the oldest Numba and NumPy that are promised."""
    session.install("-e", ".[test]", "numba==0.61.0", "numpy==1.24.*")
    session.run("pytest", "-n", "2", "-m", "not peers", *session.posargs)
