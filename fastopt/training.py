"""What surrounds the update in a training step: gradients that are looked at and added up, parameters that are averaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastopt.assembly import Assembly
from fastopt.averages import swap
from fastopt.hyperparameters import checked
from fastopt.parameters import AVERAGE, Parameter
from fastopt.tree import leaves_if_alike, matching_leaves, with_leaves
from fastopt.zeroing import require_zeroable


class Training(Assembly):
    """The parts of a training step around the update that `Optimizer` takes."""

    def accumulate(self, grads: Any) -> None:
        """Add the gradients of a micro-batch to a buffer of the optimizer's own, from which ``step()`` will take them.

        With ``reduction="mean"`` that step is one with their mean, with ``"sum"`` with their sum. The buffer has the dtypes of
        the parameters. Pending gradients are no part of state dicts, copies and pickles; `discard` forgets them, and so does a
        step that is skipped.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            As `step` takes them; only read.

        Raises
        ------
        TypeError, ValueError
            As `step` does for gradients. Nothing is changed then.
        """
        self._accumulation.add(self._vectors(grads, "grads"))
        self._plain = None

    def discard(self) -> None:
        """Forget the gradients that were accumulated since the last step."""
        if self._accumulation.count:
            self._accumulation.clear()
            self._note_plain()

    @property  # type: ignore[misc]  # to type checkers it is a field
    def clip_norm(self) -> float | None:
        """What the norm of all gradients together is limited to, or None."""
        return self._survey.clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        self._survey.clip_norm = checked(self.checks, "clip_norm", value)
        self._note_changes()

    @property  # type: ignore[misc]
    def nonfinite(self) -> str:
        """What is done about gradients that are not finite: ``"propagate"``, ``"skip"`` or ``"raise"``."""
        return self._survey.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: str) -> None:
        self._survey.nonfinite = checked(self.checks, "nonfinite", value)
        self._note_changes()

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients of the last step, scaled but not clipped; None if no option asks for norms.

        With ``clip_norm=math.inf`` it is computed, and nothing is clipped.
        """
        return self._survey.norm if self._surveys else None

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped because gradients were not finite."""
        return self._skipped_steps

    @property
    def ema(self) -> Any:
        """The averages of the parameters, nested as these are: views of what the kernels update (None in a group without).

        Raises
        ------
        AttributeError
            If no group was constructed with `ema_decay`.
        """
        if AVERAGE not in self._state_names:
            raise AttributeError(f"this {type(self).__name__} has no averages; construct it with ema_decay=")
        return self._state(AVERAGE)

    @contextlib.contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Let the parameters hold their averages within a ``with`` block, to evaluate them.

        Meanwhile `ema` has the parameters, and the optimizer takes no step and gives no state dict.

        Raises
        ------
        AttributeError
            If no group was constructed with `ema_decay`.
        RuntimeError
            If they are swapped already.
        """
        _ = self.ema
        self._require_unswapped()
        averaged = [p for p in self._parameters if AVERAGE in p.states]
        swap(averaged)
        self._set_swapped(True)
        try:
            yield
        finally:
            self._set_swapped(False)
            swap(averaged)

    def _set_swapped(self, value: bool) -> None:
        self._is_swapped = value
        self._note_plain()

    def _require_unswapped(self) -> None:
        if self._is_swapped:
            raise RuntimeError("the parameters are swapped with their averages; leave the block of swap_ema() first")

    def _state(self, name: str) -> Any:
        if self._is_grouped:
            return [group.state(name) for group in self._groups]
        return with_leaves(self._structure, [p.view(p.states[name]) if name in p.states else None for p in self._parameters])

    def _accumulated(self, grads: Any, scale: float) -> tuple[dict[Parameter, NDArray[Any]], float]:
        """The gradients that were added up, and what to multiply them by."""
        self._require_unswapped()
        count = self._accumulation.count
        if grads is not None:
            raise ValueError(
                f"{count} gradients were accumulated: take them by step() first, accumulate these too, or discard()"
            )
        if not self._active:
            return {}, scale
        if not count:
            raise TypeError("grads is missing, and nothing was accumulated")
        vectors = self._accumulation.sums([p for group in self._active for p in group.parameters])
        return vectors, scale / count if self._reduction == "mean" else scale

    def _pass(self, vectors: Mapping[Parameter, NDArray[Any]], apart: Iterable[NDArray[Any]]) -> bool:
        """Look at the gradients; False if the step is to be skipped, which uses them up all the same."""
        if self._survey.passes(self._active, vectors):
            return True
        self._skipped_steps += 1
        self.discard()
        for array in [*(vectors[p] for group in self._active if group.zeroes for p in group.parameters), *apart]:
            array[...] = 0
        return False

    def _require_zeroable(self, vectors: Mapping[Parameter, NDArray[Any]], grads: Any) -> list[NDArray[Any]]:
        """Check that the gradients that are to become zero can; those of which `vectors` has copies."""
        if grads is None:
            return []
        if self._is_lone and isinstance(grads, np.ndarray):  # which overlaps no other
            (p,) = self._parameters
            if vectors[p].flags.writeable and not p.is_copy(vectors[p]):
                return []
        named = {p: (path, p.unwrap(path, g)) for p, path, g in self._named(grads, "grads")}
        zeroed = [p for group in self._active if group.zeroes for p in group.parameters]
        return require_zeroable(zeroed, vectors, named)

    def _vectors(self, grads: Any, name: str) -> dict[Parameter, NDArray[Any]]:
        """The gradient of every parameter, checked, as vectors; not those of frozen groups."""
        if len(self._active) == len(self._groups) and (found := leaves_if_alike(self._structure, grads)) is not None:
            # What is wrong is looked for again below, to call it by its name.
            with contextlib.suppress(TypeError, ValueError):
                return {p: p.gradient(name, g) for p, g in zip(self._parameters, found, strict=True)}
        return {p: p.gradient(path, g) for p, path, g in self._named(grads, name)}

    def _named(self, grads: Any, name: str) -> list[tuple[Parameter, str, Any]]:
        """The gradient of every parameter, and what messages call it; not those of frozen groups."""
        frozen = {p for group in self._groups if group.hyper["frozen"] for p in group.parameters}
        if frozen and self._is_grouped and isinstance(grads, (list, tuple)) and len(grads) == len(self._groups):
            grads = [group.params if group.hyper["frozen"] else own for group, own in zip(self._groups, grads, strict=True)]
        named = list(matching_leaves(self._structure, grads, name))
        return [(p, path, g) for p, (path, g) in zip(self._parameters, named, strict=True) if p not in frozen]
