"""The model of replicated steps."""

import pytest

from bench.mpi_model import Machine, main, model, simulated


def test_one_rank_sends_nothing_and_many_send_everything_twice():
    machine = Machine(link=1e9, latency=0.0, memory=1e10, spread=0.0)
    alone = model(10**6, 1, machine)
    assert (alone.gradients, alone.sums, alone.parameters) == (0, 0, 0)
    assert alone.update == pytest.approx(28e6 / 1e10)
    many, halved = model(10**6, 1000, machine), model(10**6, 1000, machine, is_halved=True)
    assert many.gradients + many.parameters == pytest.approx(8e-3 * 0.999)
    assert halved.gradients + halved.parameters == pytest.approx(6e-3 * 0.999)
    assert simulated(10**6, 1000, machine) == pytest.approx(many.step)


def test_slow_ranks_hold_up_the_others():
    machine = Machine(spread=0.2)
    assert simulated(10**6, 10_000, machine) > model(10**6, 10_000, machine).step


def test_it_prints_and_draws(tmp_path, capsys):
    main(["--elements", "1000000", "--out", str(tmp_path / "model.png")])
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert (tmp_path / "model.png").stat().st_size > 5000
