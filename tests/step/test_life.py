"""Whole lives of optimizers, drawn at random: whatever is done with one, it is where NumPy is, and writes nowhere else."""

import copy
import itertools
import pickle
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastopt
from fastopt.schedules import Exponential
from tests.refusal import refused
from tests.step.slowly import Slowly

SHARED = {"lr": 0.125, "weight_decay": 0.0}
HYPER = {"SGD": {**SHARED, "momentum": 0.5}, "Adam": {**SHARED, "betas": (0.5, 0.75)}}
WHOLE = {"clip_norm": 2.0, "nonfinite": "skip", "ema_decay": 0.75}
GUARD = 8

seeds = st.integers(0, 2**16)
rates = st.sampled_from([0.0, 0.0625, 0.25, 1])


class Life(RuleBasedStateMachine):
    """An optimizer, what is done with it, and the same done slowly."""

    @initialize(
        formula=st.sampled_from(sorted(HYPER)),
        is_whole=st.booleans(),
        form=st.sampled_from(["list", "dict", "groups"]),
        sizes=st.lists(st.integers(0, 40), min_size=1, max_size=3),
        seed=seeds,
    )
    def begin(self, formula, is_whole, form, sizes, seed):
        self.rng, self.form, self.guards, self.waiting = np.random.default_rng(seed), form, [], []
        self.formula, self.whole = formula, WHOLE if is_whole else {}
        self.arrays = [[self.guarded(size)] for size in sizes]
        if form != "groups":
            self.arrays = [[array for (array,) in self.arrays]]
        self.opt = self.made(self.arrays)
        self.slow = Slowly(formula, self.arrays, HYPER[formula], self.whole)

    def guarded(self, size):
        """A new array, in the middle of memory that nobody may touch."""
        buffer = self.rng.normal(size=size + 2 * GUARD)
        self.guards.append((buffer, buffer.copy(), size))
        return buffer[GUARD : GUARD + size]

    def made(self, arrays, **changes):
        """An optimizer with these arrays in groups."""
        return getattr(fastopt, self.formula)(self.nested(arrays), **{**HYPER[self.formula], **self.whole, **changes})

    def nested(self, arrays):
        """Parameters of groups as the optimizer takes them."""
        if self.form == "groups":
            return [{"params": own} for own in arrays]
        return self.formed(arrays[0]) if len(arrays) == 1 else [self.formed(own) for own in arrays]

    def formed(self, own):
        return {f"layer {i}": array for i, array in enumerate(own)} if self.form == "dict" else own

    def gradients(self, seed, spoil=False):
        """Gradients as `step` takes them, in guarded memory, and copies of those by groups."""
        rng = np.random.default_rng(seed)
        own = [[self.guarded(array.size) for array in arrays] for arrays in self.arrays]
        for g in (g for arrays in own for g in arrays):
            g[:] = rng.normal(size=g.size)
            if spoil and g.size:
                g[rng.integers(g.size)] = np.nan
        given = own if self.form == "groups" or len(own) > 1 else own[0]
        given = [self.formed(each) for each in own] if given is own and self.form == "dict" else given
        return self.formed(given) if given is own[0] else given, [[g.copy() for g in arrays] for arrays in own]

    @rule(seed=seeds, scale=st.sampled_from([1.0, 1.0, 0.5, 2]))
    def step(self, seed, scale):
        given, own = self.gradients(seed)
        if self.waiting:
            with refused(ValueError, "accumulate", opt=self.opt):
                self.opt.step(given, scale)
            return
        self.opt.step(given, scale)
        self.slow.step(own, scale)

    @rule(seed=seeds)
    def accumulate(self, seed):
        given, own = self.gradients(seed)
        self.opt.accumulate(given)
        self.waiting.append(own)

    @precondition(lambda self: self.waiting)
    @rule()
    def take_what_was_accumulated(self):
        groups = zip(*self.waiting, strict=True)
        mean = [[sum(parts) / len(self.waiting) for parts in zip(*own, strict=True)] for own in groups]
        self.waiting = []
        self.opt.step()
        self.slow.step(mean)

    @precondition(lambda self: self.waiting)
    @rule()
    def discard(self):
        self.opt.discard()
        self.waiting = []

    @precondition(lambda self: self.whole and not self.waiting)
    @rule(seed=seeds)
    def skip_a_step(self, seed):
        given, own = self.gradients(seed, spoil=True)
        self.opt.step(given)
        self.slow.step(own)

    @rule(lr=rates)
    def assign_a_rate(self, lr):
        self.opt.lr = lr
        for group in self.slow.groups:
            group["lr"] = float(lr)

    @rule()
    def follow_a_schedule(self):
        self.opt.lr = Exponential(0.25, 0.75)
        for group in self.slow.groups:
            group["lr"] = lambda step: 0.25 * 0.75**step

    @precondition(lambda self: not self.waiting)  # else nothing was accumulated for those that were frozen
    @rule(place=st.integers(0, 9), lr=rates, weight_decay=st.sampled_from([0.0, 0.25]), frozen=st.booleans())
    def change_a_group(self, place, lr, weight_decay, frozen):
        place %= len(self.arrays)
        self.opt.param_groups[place].update(lr=lr, weight_decay=weight_decay, frozen=frozen)
        self.slow.groups[place].update(lr=float(lr), weight_decay=weight_decay, frozen=frozen)

    @rule(name=st.sampled_from(["lr", "weight_decay"]), value=st.sampled_from([-1.0, np.nan, "0.1", None]))
    def refuse_a_number(self, name, value):
        with refused((TypeError, ValueError), name, opt=self.opt):
            setattr(self.opt, name, value)

    @rule(seed=seeds)
    def refuse_a_gradient(self, seed):
        given, _ = self.gradients(seed)
        wrong = [*given, np.zeros(1)] if isinstance(given, list) else {**given, "more": np.zeros(1)}
        with refused((TypeError, ValueError), opt=self.opt):
            self.opt.accumulate(wrong)

    @precondition(lambda self: len(self.arrays) < 4 and not self.waiting)
    @rule(size=st.integers(0, 9))
    def add_a_group(self, size):
        array = self.guarded(size)
        self.opt.add_param_group({"params": self.formed([array])})
        self.arrays.append([array])
        self.slow.defaults = HYPER[self.formula]
        self.slow.add([array])

    @precondition(lambda self: not self.waiting)
    @rule(way=st.sampled_from(["copy", "pickle"]))
    def go_on_with_a_copy(self, way):
        pair = self.opt, self.arrays
        self.opt, self.arrays = copy.deepcopy(pair) if way == "copy" else pickle.loads(pickle.dumps(pair))

    @precondition(lambda self: not any(callable(group["lr"]) for group in self.slow.groups))
    @rule()
    def go_on_from_a_checkpoint(self):
        arrays = [[self.guarded(array.size) for array in own] for own in self.arrays]
        other = self.made(arrays[:1] if self.form != "groups" else arrays)
        for own in arrays[1:] if self.form != "groups" else []:
            other.add_param_group({"params": self.formed(own)})
        with tempfile.TemporaryDirectory() as folder:
            fastopt.save(Path(folder) / "life.npz", self.opt)
            fastopt.load(Path(folder) / "life.npz", other)
        self.opt, self.arrays = other, arrays

    @precondition(lambda self: not self.waiting)
    @rule()
    def rebind(self):
        arrays = [[self.guarded(array.size) for array in own] for own in self.arrays]
        for old, new in zip(itertools.chain(*self.arrays), itertools.chain(*arrays), strict=True):
            new[:] = old
        own = [self.formed(each) for each in arrays]
        self.opt.rebind(own if isinstance(self.opt.params, list) and (len(arrays) > 1 or self.form == "groups") else own[0])
        self.arrays = arrays

    @precondition(lambda self: not self.waiting)
    @rule()
    def reset(self):
        self.opt.reset()
        self.slow.reset()

    @precondition(lambda self: self.whole)
    @rule()
    def look_at_averages(self):
        with self.opt.swap_ema():
            self.agree("average")
            with refused(RuntimeError, "swap_ema"):
                self.opt.step(self.gradients(0)[0])

    @rule(threads=st.integers(1, 4), threshold=st.sampled_from([0, None]))
    def run_on_other_threads(self, threads, threshold):
        fastopt.set_num_threads(threads)
        fastopt.set_parallel_threshold(threshold)

    def agree(self, name):
        for own, group in zip(self.arrays, self.slow.groups, strict=True):
            for array, slow in zip(own, group[name], strict=True):
                np.testing.assert_allclose(array, slow, rtol=1e-9, atol=1e-9)

    @invariant()
    def is_where_plain_numpy_is(self):
        if hasattr(self, "slow"):
            self.agree("theta")
            assert self.opt.step_count == self.slow.count
            assert self.opt.skipped_steps == self.slow.skipped
            assert [group.step_count for group in self.opt.param_groups] == [group["steps"] for group in self.slow.groups]

    @invariant()
    def leaves_all_other_memory_alone(self):
        for buffer, before, size in getattr(self, "guards", []):
            np.testing.assert_array_equal(buffer[:GUARD], before[:GUARD])
            np.testing.assert_array_equal(buffer[GUARD + size :], before[GUARD + size :])

    def teardown(self):
        fastopt.set_parallel_threshold(None)


TestLife = Life.TestCase
