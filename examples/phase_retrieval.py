"""Phase retrieval: a complex transmission from the intensities of its diffraction patterns, behind four random phase masks."""

import numpy as np

rng = np.random.default_rng(0)
SIDE, MASKS = 24, 4
y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
TRUTH = (1 - 0.5 * (x**2 + y**2 < 0.5)) * np.exp(1.5j * np.sin(3 * x) * np.cos(2 * y))
masks = np.exp(2j * np.pi * rng.random((MASKS, SIDE, SIDE)))
measured = np.abs(np.fft.fft2(masks * TRUTH, norm="ortho"))


def fun(flat):
    """Half the squared error of the amplitudes, and the gradient by real and imaginary parts as one complex number."""
    waves = np.fft.fft2(masks * flat.reshape(SIDE, SIDE), norm="ortho")
    moduli = np.maximum(np.abs(waves), 1e-12)
    errors = moduli - measured
    gradient = (masks.conj() * np.fft.ifft2(errors * waves / moduli, norm="ortho")).sum(axis=0)
    return 0.5 * float(np.sum(errors**2)), gradient.ravel()


x0 = np.ones(SIDE * SIDE, complex)
bounds = None
options = {"lr": 0.1, "maxiter": 500, "complex_mode": "modulus", "gtol": 1e-4}


def quality(flat):
    """The relative error, but for the phase that no pattern shows."""
    phase = np.vdot(flat, TRUTH.ravel())
    return np.linalg.norm(flat * phase / abs(phase) - TRUTH.ravel()) / np.linalg.norm(TRUTH)
