"""Gradients from autodiff front ends, and lists of arrays in scikit-learn's style: without copies where that is possible."""

import gc
import threading

import numpy as np
import pytest

import fastopt
from tests import fresh
from tests.table import assert_same_bits


@pytest.mark.peers
def test_hips_autograd():
    import autograd
    import autograd.numpy as anp

    params = {"w": np.ones((3, 2)), "b": np.zeros(2)}
    x = np.random.default_rng(0).normal(size=(5, 3))

    def loss(p):
        return anp.sum((anp.dot(x, p["w"]) + p["b"]) ** 2)

    opt = fastopt.Adam(params, lr=0.1)
    gradient = autograd.grad(loss)
    before = loss(params)
    for _ in range(50):
        opt.step(gradient(params))
    assert loss(params) < 0.1 * before


@pytest.mark.peers
def test_jax_on_the_host_gives_its_gradients_without_a_copy(optax):
    import jax

    w = np.ones(1000, np.float32)
    opt = fastopt.SGD(w, lr=0.25)
    gradient = jax.jit(jax.grad(lambda w: (w**2).sum()))
    g = gradient(w)
    view = np.from_dlpack(g)
    assert view.__array_interface__["data"][0] == g.unsafe_buffer_pointer()
    opt.step(view)
    opt.step(np.asarray(gradient(w)))
    np.testing.assert_array_equal(w, 0.25)
    assert not np.asarray(g).flags.writeable


@pytest.mark.peers
def test_tensors_of_pytorch_are_stepped_where_they_are(torch):
    tensor = torch.ones(4, dtype=torch.float32)
    opt = fastopt.SGD(tensor.numpy(), lr=0.5)
    opt.step(torch.ones(4).numpy())
    assert tensor.tolist() == [0.5] * 4
    array = np.ones(3)
    shared = torch.from_numpy(array)
    fastopt.SGD(array, lr=1.0).step(torch.full((3,), 0.25, dtype=torch.float64).numpy())
    assert shared.tolist() == [0.75] * 3


def test_lists_in_the_style_of_scikit_learn():
    coefs, intercepts = [np.ones((4, 3)), np.ones((3, 1))], [np.zeros(3), np.zeros(1)]
    opt = fastopt.Adam(coefs + intercepts, lr=0.1)  # scikit-learn's own form: one list of all
    opt.step([np.ones_like(p) for p in coefs + intercepts])
    assert all(np.allclose(p, 0.9) for p in coefs)
    assert all(np.allclose(p, -0.1) for p in intercepts)


def test_steps_in_the_background_are_taken_in_order():
    w = np.zeros(300_000)
    plain = np.zeros(300_000)
    opt, bare = fastopt.Adam(w), fastopt.Adam(plain)
    grads = [np.random.default_rng(i).normal(size=300_000) for i in range(6)]
    futures = [opt.step_async(g, 0.5) for g in grads]
    for future, g in zip(futures, grads, strict=True):
        assert future.result(timeout=60) is None
        bare.step(g, 0.5)
    assert_same_bits(w, plain)
    assert opt.step_count == 6


def test_the_thread_in_the_background_ends_with_its_optimizer():
    before = set(threading.enumerate())
    opt = fastopt.SGD(np.ones(3))
    opt.step_async(np.ones(3)).result()
    (thread,) = set(threading.enumerate()) - before
    del opt
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_an_error_in_the_background_comes_with_the_result():
    opt = fastopt.SGD(np.zeros(3), lr=1.0)
    failing = opt.step_async(np.ones(4))
    with pytest.raises(ValueError, match=r"grads must have the shape \(3,\)"):
        failing.result(timeout=60)
    opt.step_async(np.ones(3)).result(timeout=60)
    np.testing.assert_array_equal(opt.params, -1.0)


def test_the_caller_goes_on_meanwhile():
    goes_on = threading.Event()
    opt = fastopt.SGD(np.zeros(3), lr=lambda step: 1.0 if goes_on.wait(60) else -1.0)
    future = opt.step_async(np.ones(3))
    assert not future.done()
    goes_on.set()
    future.result(timeout=60)
    np.testing.assert_array_equal(opt.params, -1.0)


def test_many_optimizers_step_at_once_from_many_threads():
    params = [np.zeros(200_000, np.float32) for _ in range(6)]
    g = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    optimizers = [fastopt.AdamW(p, clip_norm=1.0, nonfinite="skip", ema_decay=0.9) for p in params]

    def run(opt):
        for _ in range(10):
            opt.step(g)

    threads = [threading.Thread(target=run, args=(opt,)) for opt in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for p, opt in zip(params[1:], optimizers[1:], strict=True):
        assert_same_bits(p, params[0])
        assert_same_bits(opt.ema, optimizers[0].ema)


def test_a_forked_child_has_a_background_of_its_own():
    done = fresh.run(FORK, fresh.ROOT)
    assert done == {"child": 0}


FORK = """
import os
opt = fastopt.Adam(np.zeros(3))
opt.step_async(np.ones(3)).result()
child = os.fork()
if child == 0:
    try:
        opt.step_async(np.ones(3)).result(timeout=30)
        os._exit(0)
    finally:
        os._exit(1)
report(child=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
