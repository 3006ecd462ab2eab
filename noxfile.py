"""The tests on every supported interpreter that is present: ``nox``.

The peers are left out here: torch and jax don't exist for every interpreter. The continuous integration runs their tests.
"""

import nox


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests that need no peer."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "2", "-m", "not peers", *session.posargs)
