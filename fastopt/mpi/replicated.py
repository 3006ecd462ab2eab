"""All ranks have the same parameters, and each of them gradients of its own: the state is sharded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from fastopt.arrays.name_patterns import are_groups
from fastopt.arrays.overlaps import Memory
from fastopt.arrays.parameters import Parameter
from fastopt.arrays.per_element import is_tree
from fastopt.arrays.tree import leaves, map_leaves, matching_leaves, with_leaves
from fastopt.description.hyperparameters import ELSEWHERE, finite
from fastopt.mpi.agreement import checksums, comparable, described, named_arrays, together
from fastopt.mpi.shards import Shards
from fastopt.mpi.sums import InRankOrder
from fastopt.optimizer import Optimizer
from fastopt.step.shared_steps import Allreduce

# What a step would do with all of a parameter or of its gradient, where it has only a part of it, or a sum.
REFUSED: Mapping[str, str] = {
    "copy_to": "a rank steps a part of the parameters, and the copy would have no more",
    "zero_grad": "what is stepped is the sum of the ranks' gradients; zero your own",
    "by_name": "give groups",
    "per_row": "a shard may begin within a row",
    "reduce": "it is set to sums over the ranks",
}

# What belongs to the optimizer of the shard, and is the same on all ranks, or a part on each.
OF_SHARD = frozenset(
    {"discard", "close", "ema", "grad_norm", "param_groups", "reset", "skipped_steps", "state", "step_count", "warmup"}
)


class Replicated:
    """An optimizer of parameters that all ranks have. Made by `replicated`.

    It has the attributes of the optimizer: hyper-parameters, which must be set alike on all ranks, counters, `grad_norm`; and
    `state`, `ema` and `param_groups` with the parts of this rank. All its methods must be called by all ranks.

    Attributes
    ----------
    params : ndarray, Flat, or list, tuple or dict of them, nested
        The parameters as they were given.
    shared : Optimizer
        Steps this rank's part of them.
    """

    def __init__(
        self, optimizer: type[Optimizer], params: Any, comm: Any, options: Mapping[str, Any], communication_dtype: Any = None
    ) -> None:
        if beside := sorted({"eval_params", "update_hessian"} & set(dir(optimizer))) or optimizer.elements:
            raise ValueError(f"replicated is not for {optimizer.__name__}: its {beside[0]} needs all of a parameter on a rank")
        if communication_dtype not in (None, "bfloat16"):
            raise ValueError(f"communication_dtype must be None or 'bfloat16', got {communication_dtype!r}")
        self._comm, is_halved = comm, communication_dtype is not None
        self._is_grouped = are_groups(params)
        groups = [dict(group) for group in params] if self._is_grouped else [{"params": params}]
        for given in (options, *groups):
            for key in given.keys() & REFUSED.keys():
                raise ValueError(f"{key} is not for replicated parameters: {REFUSED[key]}")
        trees = [map_leaves(lambda leaf: leaf, group["params"]) for group in groups]
        self.params = trees if self._is_grouped else trees[0]
        memory = Memory()
        self._parameters = [Parameter(name, leaf, memory) for name, leaf in leaves(self.params, "params")]
        dtypes = dict.fromkeys(p.array.dtype for p in self._parameters)
        self._shards = [Shards(comm, [p for p in self._parameters if p.array.dtype == dtype], is_halved) for dtype in dtypes]
        self._shards_of = {p: shards for shards in self._shards for p in shards.parameters}
        of_rank = [
            self._part_of_options(group, tree) | {"params": self._part_of_tree("params", tree, tree)}
            for group, tree in zip(groups, trees, strict=True)
        ]
        own = self._part_of_options(options, self.params)
        reduce = InRankOrder(comm)
        self.shared = optimizer(of_rank if self._is_grouped else of_rank[0]["params"], **{**own, "reduce": reduce})
        self._ends = Allreduce(reduce, "the ranks may have other parameters than each other now")
        if any(p.has_codes for group in self.shared.param_groups for p in group.parameters):
            raise ValueError("state_dtype='int8' is not for replicated parameters, since blocks would lie on two ranks")
        self._place_parts()
        self._gradients = with_leaves(self.params, [self._shards_of[p].own_gradient(p) for p in self._parameters])

    def step(self, grads: Any = None, scale: float = 1.0, *, lr: Any = None) -> None:
        """Take a step with the mean of all ranks' gradients.

        Parameters
        ----------
        grads, scale, lr
            As `Optimizer.step` takes them; without `grads` what `accumulate` has added up.

        Raises
        ------
        TypeError, ValueError
            As `Optimizer.step` does, or if the ranks have different hyper-parameters or counters.
        RuntimeError
            If another rank has failed. Nothing is changed then, on no rank, unless it has failed in the midst of the step, as a
            schedule can, which the message says.
        """
        self._require_thread()
        with together(self._comm) as same:
            vectors = None if grads is None else self._vectors(grads)
            rate = self._part_of_tree("lr", lr, self.params)
            scale = finite("scale", scale) / self._comm.size
            same |= described(self.shared) | {"scale": scale, "whether there are gradients": vectors is not None}
            same["lr"] = comparable(lr)
        if vectors is not None:
            self._reduce_scatter(vectors)
        with self._ends.telling_failure([0]):
            self.shared.step(None if vectors is None else self._gradients, scale, lr=rate)
            self._ends([])
        self._all_gather()

    def accumulate(self, grads: Any) -> None:
        """Add the ranks' gradients of a micro-batch, each rank those of its part.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            As `step` takes them.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `step` does for gradients.
        """
        self._require_thread()
        with together(self._comm):
            vectors = self._vectors(grads)
        self._reduce_scatter(vectors)
        self.shared.accumulate(self._gradients)

    def norm(self, grads: Any) -> float:
        """Compute the norm of the mean of all ranks' gradients.

        Parameters
        ----------
        grads : ndarray, Flat, or list, tuple or dict of them
            As `step` takes them.

        Returns
        -------
        float
        """
        self._require_thread()
        with together(self._comm):
            vectors = self._vectors(grads)
        self._reduce_scatter(vectors)
        return self.shared.norm(self._gradients) / float(self._comm.size)

    @contextlib.contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Let the parameters hold their averages within a ``with`` block, on all ranks."""
        with contextlib.ExitStack() as block:
            block.callback(self._all_gather)  # at the end, whatever has ended the block
            with together(self._comm):
                block.enter_context(self.shared.swap_ema())
            self._all_gather()
            yield

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """All that a later run needs besides the parameters, whatever number of ranks it has, gathered on each rank.

        Parameters
        ----------
        copy : bool, default True
            The arrays are copies in any case.

        Returns
        -------
        dict
            As an optimizer of all parameters gives it, which can load it, too.
        """
        with together(self._comm):
            own = self.shared.state_dict(copy=False)
        gathered: dict[str, Any] = self._changed(own, self._gathered)
        return gathered

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, here or with another number of ranks, or a plain optimizer.

        Parameters
        ----------
        state_dict : mapping
            The same on all ranks.

        Raises
        ------
        TypeError, ValueError
            As `Optimizer.load_state_dict` does; or if the ranks have different ones.
        RuntimeError
            If it is refused on another rank.
        """
        with together(self._comm) as same:
            self.shared.load_state_dict(self._changed(state_dict, self._part))
            same |= described(self.shared)

    def _reduce_scatter(self, vectors: Mapping[Parameter, NDArray[Any]]) -> None:
        for shards in self._shards:
            shards.reduce_scatter(vectors)

    def _all_gather(self) -> None:
        for shards in self._shards:
            shards.all_gather()

    def _require_thread(self) -> None:
        reduce: Any = self.shared._whole["reduce"]
        reduce.require_thread()

    def _vectors(self, grads: Any) -> dict[Parameter, NDArray[Any]]:
        """The gradients of this rank, checked, without those of frozen groups."""
        frozen = {p.name for group in self.shared.param_groups if group["frozen"] for p in group.parameters}
        if frozen and self._is_grouped and isinstance(grads, (list, tuple)) and len(grads) == len(self.params):
            names = [group.parameters[0].name in frozen for group in self.shared.param_groups]
            grads = [own if skips else g for own, g, skips in zip(self.params, grads, names, strict=True)]
        named = list(matching_leaves(self.params, grads, "grads"))
        pairs = zip(self._parameters, named, self._names(), strict=True)
        return {p: p.gradient(path, g) for p, (path, g), name in pairs if name not in frozen}

    def _place_parts(self) -> None:
        """Give all elements the places that they have without ranks, and so the same noise for stochastic rounding."""
        first, parts = 0, [part for group in self.shared.param_groups for part in group.parameters]
        for p, part in zip(self._parameters, parts, strict=True):
            numbers = 1 + (p.is_complex and not part.is_paired)
            part.first = first + numbers * self._shards_of[p].range_of(p)[0]
            first += numbers * p.array.size

    def _names(self) -> list[str]:
        """How the optimizer of the shard calls the parameters."""
        return [p.name for group in self.shared.param_groups for p in group.parameters]

    def _part(self, p: Parameter, array: Any) -> Any:
        return self._shards_of[p].part(p, array)

    def _gathered(self, p: Parameter, part: NDArray[Any]) -> NDArray[Any]:
        return self._shards_of[p].gathered(p, part)

    def _part_of_tree(self, name: str, value: Any, tree: Any) -> Any:
        """The part of this rank of arrays that are nested as some of the parameters; anything else as it is."""
        if not is_tree(value):
            return value
        by_leaf = {id(p.leaf): p for p in self._parameters}
        owners = [by_leaf[id(leaf)] for _, leaf in leaves(tree, "")]
        given = [each for _, each in matching_leaves(tree, value, name)]
        return with_leaves(tree, map(self._part, owners, given))

    def _part_of_options(self, options: Mapping[str, Any], tree: Any) -> dict[str, Any]:
        """Options with the part of this rank of their arrays."""
        parts = {
            key: self._part_of_tree(key, value, tree) if key in ("lr", "mask") else value for key, value in options.items()
        }
        if isinstance(bounds := options.get("bounds"), (list, tuple)):
            parts["bounds"] = tuple(self._part_of_tree("bounds", side, tree) for side in bounds)
        return parts

    def _changed(self, saved: Any, change: Callable[[Parameter, Any], Any]) -> Any:
        """A state dict with other arrays in the place of those that belong to parameters."""
        if not _is_state_dict(saved, len(self.shared.param_groups)):
            return saved  # which the optimizer of the shard refuses
        owners = dict(zip(self._names(), self._parameters, strict=True))
        state = {
            name: {key: change(owners[key], array) if key in owners else array for key, array in arrays.items()}
            for name, arrays in saved["state"].items()
        }
        groups = []
        for group, values in zip(self.shared.param_groups, saved["groups"], strict=True):
            own = [owners[p.name] for p in group.parameters]
            trees = {key: _with_changes(own, values[key], change) for key in ("lr", "mask") if key in values}
            if isinstance(bounds := values.get("bounds"), (list, tuple)):
                trees["bounds"] = tuple(_with_changes(own, side, change) for side in bounds)
            groups.append({**values, **trees})
        return {**saved, "state": state, "groups": groups}

    def __getattr__(self, name: str) -> Any:
        if name == "shared" or not (name in OF_SHARD or name in self.shared.checks):
            raise AttributeError(f"there is no attribute {name!r} of an optimizer of replicated parameters")
        return getattr(self.shared, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "shared" in vars(self) and (name in self.shared.checks or name in ELSEWHERE):
            setattr(self.shared, name, self._part_of_tree(name, value, self.params) if name in ("lr", "mask") else value)
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<rank {self._comm.rank} of {self._comm.size}, {self.shared!r}>"

    def __reduce__(self) -> Any:
        raise TypeError("an optimizer of several ranks can't be copied or pickled; use its state dict")


def _is_state_dict(saved: Any, count: int) -> bool:
    """Whether it has mappings where state dicts of so many groups have some."""
    if not isinstance(saved, Mapping):
        return False
    state, groups = saved.get("state"), saved.get("groups")
    if not isinstance(state, Mapping) or not isinstance(groups, (list, tuple)) or len(groups) != count:
        return False
    return all(isinstance(each, Mapping) for each in (*state.values(), *groups))


def _with_changes(owners: list[Parameter], tree: Any, change: Callable[[Parameter, Any], Any]) -> Any:
    return with_leaves(tree, map(change, owners, (leaf for _, leaf in leaves(tree, "")))) if is_tree(tree) else tree


def replicated(
    optimizer: type[Optimizer], params: Any, comm: Any, *, communication_dtype: str | None = None, **options: Any
) -> Replicated:
    """Make an optimizer of parameters that all ranks have, by gradients of which each rank has its own.

    A step adds up the gradients of all ranks such that each rank gets the sum of one part, a shard; takes the step of this part
    with the mean; and lets all have all parameters again. So a rank has the state of its shard only, and all have the same
    parameters, bit for bit. What an optimizer sums up over the elements goes over all shards.

    Parameters
    ----------
    optimizer : type
        A class of optimizers.
    params : ndarray, Flat, or list, tuple or dict of them, nested; or a list of groups
        The same on all ranks, values and all. With one array, or a `Flat`, of each dtype nothing is copied on the way.
    comm : mpi4py.MPI.Comm
        The ranks.
    communication_dtype : {None, "bfloat16"}
        How gradients move: as they are, or rounded to bfloat16, half of float32; they are added up in float32 all the same.
        Parameters move as they are.
    **options
        Arguments of the class, the same on all ranks.

    Returns
    -------
    Replicated

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or the ranks have different ones, or different parameters.
    RuntimeError
        If one is not allowed on another rank.
    """
    with together(comm) as same:
        same |= {name: (array.shape, str(array.dtype)) for name, array in named_arrays(params).items()}
        same["the names of the arrays"] = list(same)
    with together(comm) as same:
        same |= checksums(params)
    with together(comm) as same:
        made = Replicated(optimizer, params, comm, options, communication_dtype)
        same |= described(made.shared) | {"communication_dtype": communication_dtype}
    return made
