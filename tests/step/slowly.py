"""Optimizers as somebody writes them who has time: NumPy in double precision, one array after the other, nothing in place."""

import math

import numpy as np


class Slowly:
    """Steps arrays as `SGD` with momentum or `Adam` do, with the options that a whole training step has.

    Parameters
    ----------
    formula : {"SGD", "Adam"}
    groups : list of list of ndarray
        Copied.
    hyper : dict
        For all groups: ``lr``, a number or a schedule, ``weight_decay``, and `momentum` or `betas`.
    options : dict
        ``clip_norm``, and ``nonfinite``, for all groups together; ``clip_value``, ``maximize``, ``decoupled_weight_decay``,
        ``l1``, ``bounds``, ``ema_decay``.
    """

    def __init__(self, formula, groups, hyper, options):
        self.formula, self.options, self.count, self.skipped = formula, options, 0, 0
        self.defaults = hyper
        self.groups = []
        for arrays in groups:
            self.add(arrays)

    def add(self, arrays):
        """Add a group."""
        copies = {name: [array.copy() for array in arrays] for name in ("theta", "average")}
        zeros = {name: [np.zeros_like(array) for array in arrays] for name in ("m", "v")}
        self.groups.append({**self.defaults, "frozen": False, "steps": 0, **copies, **zeros})

    def set_rate(self, lr):
        """Let all groups have another learning rate."""
        for group in self.groups:
            group["lr"] = lr

    def step(self, grads, scale=1.0):
        """Take a step with the gradients of each group; none, if one that counts is not finite and such steps are skipped."""
        both = zip(self.groups, grads, strict=True)
        moving = [(group, [scale * g for g in own]) for group, own in both if not group["frozen"]]
        every = np.concatenate([np.zeros(0), *(g.ravel() for _, own in moving for g in own)])
        if self.options.get("nonfinite") == "skip" and not np.isfinite(every).all():
            self.skipped += 1
            return
        limit = self.options.get("clip_norm", math.inf)
        norm = math.sqrt(np.sum(every * every))
        factor = 1.0 if norm <= limit else limit / norm
        for group, own in moving:
            self._step_group(group, [factor * g for g in own])
        self.count += 1

    def _step_group(self, group, grads):
        lr = group["lr"](self.count) if callable(group["lr"]) else group["lr"]
        group["steps"] += 1
        options, decay = self.options, group["weight_decay"]
        limit, least = options.get("clip_value", math.inf), lr * options.get("l1", 0.0)
        for i, g in enumerate(grads):
            theta = group["theta"][i]
            g = np.clip(g, -limit, limit) * (-1 if options.get("maximize") else 1)
            if options.get("decoupled_weight_decay"):
                theta = theta - lr * decay * theta
            else:
                g = g + decay * theta
            if self.formula == "SGD":
                group["m"][i] = move = group["momentum"] * group["m"][i] + g
            else:
                (beta1, beta2), t = group["betas"], group["steps"]
                group["m"][i] = m = beta1 * group["m"][i] + (1 - beta1) * g
                group["v"][i] = v = beta2 * group["v"][i] + (1 - beta2) * g**2
                move = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + 1e-8)
            theta = theta - lr * move
            theta = theta - np.clip(theta, -least, least)
            group["theta"][i] = theta = np.clip(theta, *options.get("bounds", (-math.inf, math.inf)))
            if (beta := options.get("ema_decay")) is not None:
                group["average"][i] = beta * group["average"][i] + (1 - beta) * theta

    def reset(self):
        """Begin anew from the parameters as they are."""
        self.count = self.skipped = 0
        for group in self.groups:
            group["steps"] = 0
            group["average"] = [array.copy() for array in group["theta"]]
            for name in ("m", "v"):
                group[name] = [np.zeros_like(array) for array in group[name]]
