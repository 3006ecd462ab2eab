"""Whole lives of optimizers, drawn at random: whatever is done with one, it is where NumPy is, and writes nowhere else."""

import contextlib
import copy
import hashlib
import itertools
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import fastopt
from fastopt.arrays.tree import leaves
from fastopt.schedules import Exponential
from tests.alarms import interrupted
from tests.forks import in_a_fork
from tests.guards import guarded
from tests.refusal import refused
from tests.selection import drawn
from tests.step.slowly import Slowly

SHARED = {"lr": 0.125, "weight_decay": 0.0}
HYPER = {"SGD": {**SHARED, "momentum": 0.5}, "Adam": {**SHARED, "betas": (0.5, 0.75)}}
STATES = {"SGD": {"p": "m"}, "Adam": {"m": "m", "v": "v"}}  # and what they are called where they are computed slowly

WHOLE = {"clip_norm": 2.0, "nonfinite": "skip", "ema_decay": 0.75}
ALL = WHOLE | {"clip_value": 0.75, "maximize": True, "decoupled_weight_decay": True, "l1": 0.125, "bounds": (-1.0, 0.75)}
ALL["zero_grad"] = True
ALONE = [{name: ALL[name]} for name in ALL]
ALL_BUT_ONE = [{name: ALL[name] for name in ALL if name != other} for other in ALL]
OPTIONS = drawn([{}, WHOLE, ALL, *ALONE, *ALL_BUT_ONE], lambda options: (bool(options), options == ALL))

seeds = st.integers(0, 2**16)
rates = st.sampled_from([0.0, 0.0625, 0.25, 1])


class Life(RuleBasedStateMachine):
    """An optimizer, what is done with it, and the same done slowly."""

    @initialize(
        formula=st.sampled_from(sorted(HYPER)),
        options=st.sampled_from(OPTIONS),
        form=st.sampled_from(["list", "dict", "groups"]),
        sizes=st.lists(st.integers(0, 40), min_size=1, max_size=3),
        seed=seeds,
    )
    def begin(self, formula, options, form, sizes, seed):
        self.rng, self.form, self.waiting = np.random.default_rng(seed), form, []
        self.formula, self.options = formula, options
        self.stack = contextlib.ExitStack()
        self.guards = self.stack.enter_context(guarded())
        self.arrays = [[self.guarded(size)] for size in sizes]
        if form != "groups":
            self.arrays = [[array for (array,) in self.arrays]]
        self.opt = self.made(self.arrays)
        self.slow = Slowly(formula, self.arrays, HYPER[formula], options)

    def guarded(self, size):
        """A new array, in the middle of memory that nobody may touch."""
        return self.guards.copy(self.rng.normal(size=size))

    def made(self, arrays):
        """An optimizer with these arrays in groups."""
        return getattr(fastopt, self.formula)(self.nested(arrays), **{**HYPER[self.formula], **self.options})

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
        self.handed = own = [[self.guarded(array.size) for array in arrays] for arrays in self.arrays]
        for g in (g for arrays in own for g in arrays):
            g[:] = rng.normal(size=g.size)
            if spoil and g.size:
                g[rng.integers(g.size)] = np.nan
        given = own if self.form == "groups" or len(own) > 1 else own[0]
        given = [self.formed(each) for each in own] if given is own and self.form == "dict" else given
        return self.formed(given) if given is own[0] else given, [[g.copy() for g in arrays] for arrays in own]

    def taken(self, own, scale=1.0):
        """Do slowly what was done with these gradients."""
        self.slow.step(own, scale)
        self.leaves_gradients(own, is_zeroing=self.options.get("zero_grad"))

    def leaves_gradients(self, own, is_zeroing=False):
        """What was handed over last is as it was, or zero."""
        for group, handed, before in zip(self.slow.groups, self.handed, own, strict=True):
            for g, old in zip(handed, before, strict=True):
                np.testing.assert_array_equal(g, np.zeros_like(old) if is_zeroing and not group["frozen"] else old)

    @rule(seed=seeds, scale=st.sampled_from([1.0, 1.0, 0.5, 2]), lr=st.none() | rates)
    def step(self, seed, scale, lr):
        given, own = self.gradients(seed)
        if self.waiting:
            with refused(ValueError, "accumulate", opt=self.opt):
                self.opt.step(given, scale, lr=lr)
            self.leaves_gradients(own)
            return
        self.opt.step(given, scale, lr=lr)
        if lr is not None:
            self.slow.set_rate(float(lr))
        self.taken(own, scale)

    @precondition(lambda self: not self.waiting)
    @rule(seed=seeds, place=st.sampled_from(["background", "thread"]))
    def step_in_another_thread(self, seed, place):
        given, own = self.gradients(seed)
        with ThreadPoolExecutor(1) as pool:
            step = self.opt.step_async(given) if place == "background" else pool.submit(self.opt.step, given)
        step.result()
        self.taken(own)

    @precondition(lambda self: not self.waiting)
    @rule(seed=seeds)
    def step_in_a_fork_and_here(self, seed):
        given, own = self.gradients(seed)
        self.opt.warmup()
        found = in_a_fork(lambda: self.opt.step(given) or self.digest())
        self.opt.step(given)
        assert found == self.digest()
        self.taken(own)

    def digest(self):
        """Of parameters and states."""
        arrays = [array for _, array in leaves([self.arrays, *self.opt.state.values()], "")]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).digest()

    @precondition(lambda self: not self.waiting)
    @rule(seed=seeds, seconds=st.sampled_from([2e-5, 1e-4, 3e-4]))
    def break_a_step_off(self, seed, seconds):
        given, own = self.gradients(seed)
        self.opt.warmup()
        is_broken_off = interrupted(seconds, lambda: self.opt.step(given))
        if self.opt.step_count > self.slow.count:
            self.taken(own)
        else:
            assert is_broken_off
            self.leaves_gradients(own)

    @rule(seed=seeds)
    def accumulate(self, seed):
        given, own = self.gradients(seed)
        self.opt.accumulate(given)
        self.leaves_gradients(own)
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

    @precondition(lambda self: "nonfinite" in self.options and not self.waiting)
    @rule(seed=seeds)
    def skip_a_step(self, seed):
        given, own = self.gradients(seed, spoil=True)
        self.opt.step(given)
        self.taken(own)

    @rule(lr=rates)
    def assign_a_rate(self, lr):
        self.opt.lr = lr
        self.slow.set_rate(float(lr))

    @rule()
    def follow_a_schedule(self):
        self.opt.lr = Exponential(0.25, 0.75)
        self.slow.set_rate(lambda step: 0.25 * 0.75**step)

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
    @rule(
        way=st.sampled_from([copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair)), lambda pair: map(copy.copy, pair)])
    )
    def go_on_with_a_copy(self, way):
        self.opt, self.arrays = way((self.opt, self.arrays))
        self.rebind()  # for copies of arrays have no guards

    @precondition(lambda self: not self.waiting)
    @rule()
    def go_on_from_a_state_dict(self):
        saved = self.opt.state_dict()
        self.opt.reset()
        self.opt.load_state_dict(saved)

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

    @precondition(lambda self: "ema_decay" in self.options)
    @rule()
    def look_at_averages(self):
        with self.opt.swap_ema():
            self.agree(self.arrays, "average")
            with refused(RuntimeError, "swap_ema"):
                self.opt.step(self.gradients(0)[0])

    @rule(threads=st.integers(1, 4), threshold=st.sampled_from([0, None]))
    def run_on_other_threads(self, threads, threshold):
        fastopt.set_num_threads(threads)
        fastopt.set_parallel_threshold(threshold)

    def agree(self, found, name):
        """Compare with what was computed slowly."""
        expected = itertools.chain(*(group[name] for group in self.slow.groups))
        for (where, array), slow in zip(leaves(found, name), expected, strict=True):
            np.testing.assert_allclose(array, slow, rtol=1e-9, atol=1e-9, err_msg=where)

    @invariant()
    def is_where_plain_numpy_is(self):
        if hasattr(self, "slow"):
            self.agree(self.arrays, "theta")
            for name, slow in STATES[self.formula].items():
                self.agree(self.opt.state[name], slow)
            if "ema_decay" in self.options:
                self.agree(self.opt.ema, "average")
            assert self.opt.step_count == self.slow.count
            assert self.opt.skipped_steps == self.slow.skipped
            assert [group.step_count for group in self.opt.param_groups] == [group["steps"] for group in self.slow.groups]

    @invariant()
    def leaves_all_other_memory_alone(self):
        if hasattr(self, "guards"):
            self.guards.check()

    def teardown(self):
        fastopt.set_parallel_threshold(None)
        if hasattr(self, "stack"):
            self.stack.close()


TestLife = Life.TestCase
