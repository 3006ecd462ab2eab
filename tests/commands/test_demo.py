"""The demo: its gradients, its timing, its table, its pictures, and how it fails."""

import re
import sys

import numpy as np
import pytest

import fastopt
from fastopt.__main__ import main
from fastopt.commands.demo import in_place, network
from fastopt.commands.demo.digits import Digits
from fastopt.commands.demo.inversion import Inversion, Stirring
from fastopt.commands.demo.systems import SYSTEMS
from fastopt.commands.demo.training import Pair, train

ROW = re.compile(
    r"^(?P<title>.+?)  +(?P<loss>[\d.e+-]+) +(?P<score>[\d.]+)%? +(?P<fused>[\d.,]+) us +(?P<plain>[\d,]+) us +[\d.]+x$"
)


@pytest.fixture(autouse=True)
def _one_thread(_threads):
    """No step waits for a CPU that another process holds, and the results are the same bits anyway."""
    fastopt.set_num_threads(1)


def rows(text):
    return {match["title"]: match for match in map(ROW.match, text.splitlines()) if match}


def number(text):
    return float(text.replace(",", ""))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


CASES = [
    ("SGD", {}),
    ("SGD", {"lr": np.linspace(0.0, 0.1, 300)}),
    ("SGD", {"lr": 0.01, "momentum": 0.9}),
    ("AdaGrad", {}),
    ("AdaGrad", {"lr": 1e-4, "eps": 1e-2, "accumulate": "rates"}),
    ("RMSProp", {}),
    ("RMSProp", {"lr": 1e-3, "eps": 1e-2, "accumulate": "rates"}),
    ("Adam", {}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("family", "hyper"), CASES)
def test_in_place_numpy_takes_the_same_steps(family, hyper, dtype):
    rng = np.random.default_rng(0)
    hyper = {key: value.astype(dtype) if isinstance(value, np.ndarray) else value for key, value in hyper.items()}
    fused = rng.standard_normal(300).astype(dtype)
    plain = fused.copy()
    start = fused.copy()
    one, other = getattr(fastopt, family)(fused, **hyper), getattr(in_place, family)(plain, **hyper)
    for _ in range(20):
        g = rng.standard_normal(300).astype(dtype)
        one.step(g)
        other.step(g)
    assert np.abs(fused - start).max() > 1e-3
    np.testing.assert_allclose(plain, fused, rtol=0, atol=20 * np.finfo(dtype).eps * np.abs(fused).max())


def test_a_pair_times_every_step_of_both():
    params = fastopt.flatten([np.ones(10), np.ones((2, 3))])
    pair = Pair("SGD", params, {"lr": 0.5})
    grads = params.like()
    grads.buffer[...] = 1.0
    for _ in range(3):
        pair.step(grads)
    assert np.array_equal(params.buffer, np.full(16, -0.5))
    assert np.array_equal(pair.plain.theta, params.buffer)
    assert len(pair.fused_seconds) == len(pair.plain_seconds) == 3
    assert min(pair.fused_seconds + pair.plain_seconds) > 0


def test_the_networks_gradient_is_that_of_its_loss():
    rng = np.random.default_rng(0)
    layers = [
        {name: a.astype(np.float64) + 0.1 for name, a in layer.items()} for layer in network.initialize((5, 7, 6, 3), rng)
    ]
    params = fastopt.flatten(layers)
    grads, ignored = params.like(), params.like()
    x, labels = rng.standard_normal((4, 5)), np.array([0, 2, 1, 2])
    network.loss_and_gradient(params.tree, x, labels, grads.tree)
    direction = rng.standard_normal(params.buffer.size)
    losses = []
    for sign in (1, -1):
        params.buffer[...] += sign * 1e-6 * direction
        losses.append(network.loss_and_gradient(params.tree, x, labels, ignored.tree))
        params.buffer[...] -= sign * 1e-6 * direction
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(grads.buffer @ direction, rel=1e-6)


@pytest.mark.parametrize("size", [16, 37])
def test_the_adjoint_is_the_transpose(size):
    rng = np.random.default_rng(0)
    stirring = Stirring(size, rng, np.float64)
    u, v = rng.standard_normal((2, size, size))
    forward, adjoint = stirring.forward(u), stirring.adjoint(v)
    assert np.vdot(forward, v) == pytest.approx(np.vdot(u, adjoint), rel=1e-12)
    assert forward.sum() == pytest.approx(u.sum(), rel=1e-10)  # no dye is lost


def test_the_inversions_gradient_is_that_of_its_loss():
    inversion = Inversion(0, size=24, dtype=np.float64)
    params = inversion.start()
    grads, ignored = params.like(), params.like()
    rng = np.random.default_rng(0)
    params.buffer[...] += rng.standard_normal(params.buffer.size)
    [_] = inversion.losses(params, grads, 0)
    direction = rng.standard_normal(params.buffer.size)
    losses = []
    for sign in (1, -1):
        params.buffer[...] += sign * 1e-5 * direction
        losses += inversion.losses(params, ignored, 0)
        params.buffer[...] -= sign * 1e-5 * direction
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(grads.buffer @ direction, rel=1e-6)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_configuration_recovers_the_field(name):
    inversion = Inversion(0, size=64)
    run = train(inversion, name, 40, lambda loss: None)
    assert run.losses[-1] < 0.25 * run.losses[0]
    assert run.score < 0.85 * inversion.score(inversion.start())
    assert 0 <= inversion.field(run.params).min() <= inversion.field(run.params).max() <= 1


def test_digits_with_every_configuration(tmp_path, capsys):
    path = tmp_path / "digits.png"
    assert main(["demo", "--epochs", "4", "--out", str(path)]) == 0
    found = rows(capsys.readouterr().out)
    assert list(found) == [system.title for system in SYSTEMS.values()]
    for row in found.values():
        assert number(row["loss"]) < 2.2  # guessing costs log(10) = 2.3
        assert 50 < number(row["score"]) <= 100
        assert number(row["fused"]) > 0
        assert number(row["plain"]) > 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_states_of_16_bits_learn_as_well(tmp_path, capsys):
    path = tmp_path / "digits.png"
    accuracies = {}
    for state in ("float32", "bfloat16"):
        assert main(["demo", "--optimizer", "adam", "--epochs", "2", "--state", state, "--out", str(path)]) == 0
        accuracies[state] = float(re.search(r"([\d.]+)%", capsys.readouterr().out)[1])
    assert accuracies["float32"] > 90.0
    assert abs(accuracies["bfloat16"] - accuracies["float32"]) < 3.0


def test_the_rate_vector_is_by_fan_in():
    rates = Digits(0).rates(1.0)
    assert rates[0]["W"][0, 0] == rates[0]["b"][0] == 0.125


def test_some_optimizers_and_the_seed(tmp_path, capsys):
    tables = []
    for seed in ("3", "3", "4"):
        path = tmp_path / f"{len(tables)}.svg"
        main(["demo", "--optimizer", "adam", "--optimizer", "momentum", "--epochs", "1", "--seed", seed, "--out", str(path)])
        assert path.read_text().startswith("<?xml")
        tables.append({title: row["loss"] for title, row in rows(capsys.readouterr().out).items()})
    assert list(tables[0]) == ["Adam", "momentum"]
    assert tables[0] == tables[1] != tables[2]


def test_the_inversion_has_a_million_unknowns(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--problem", "inversion", "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "1,048,576 float32 parameters, 2 steps" in out
    assert list(rows(out)) == ["Adam"]
    assert (tmp_path / "fastopt-inversion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--optimizer", "adamw"), "invalid choice: 'adamw'"),
        (("--problem", "words"), "invalid choice: 'words'"),
        (("--epochs", "0"), "--epochs: must be at least 1"),
        (("--epochs", "two"), "--epochs: must be a whole number"),
        (("--seed", "-1"), "--seed: must be a whole number"),
        (("--out", "table.txt"), "--out: must end in .pdf, .png, .svg"),
        (("--out", "no/such/folder/a.png"), "--out: can't write to"),
    ],
)
def test_bad_arguments_are_refused(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_folder_is_no_picture(capsys, tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "can't write to" in refused(capsys, "--out", str(tmp_path / "a.png"))


def test_help_names_the_optimizers(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in SYSTEMS)


def test_no_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["matplotlib", "sklearn", "tqdm"])
def test_a_missing_extra_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--epochs", "1"])
    assert stopped.value.code == f'The demo needs {module}: pip install "fastopt[demo]"'  # printed, with the exit code 1
