"""A model in parts: each process keeps its rows of every weight, and all that depends on them (FSDP2).

What trains is then gathered block by block when its turn comes, by torch's ``fully_shard``, and gradients come back in
parts. This file alone knows that; others ask it for their own part of a tensor, for whole ones to save, or for a model
that is whole for a while. Of a model that every process holds whole, all of it is what it is. What is saved is whole,
so a run goes on with any number of processes, in parts or not.

Whatever gathers is to be called by all processes alike.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn


def place(model: nn.Module, device: torch.device, in_parts: bool) -> bool:
    """Bring a model to its device, in parts if that is wanted and there are several processes; whether it is."""
    in_parts = in_parts and distributed.is_initialized() and distributed.get_world_size() > 1
    if not in_parts:
        model.to(device)
        return False
    from torch.distributed.device_mesh import init_device_mesh  # a process alone need not wait for it
    from torch.distributed.fsdp import fully_shard

    # The losses of each index are one, which nobody writes to.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # The rest is needed from the beginning of a pass to its end.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    return True


def compile_model(model: nn.Module) -> None:
    """Fuse a model's kernels; of a model in parts those of its blocks, between what gathers them."""
    if not hasattr(model, "unshard"):
        model.compile(dynamic=False)
        return
    for block in model.blocks:  # type: ignore[union-attr, operator]
        block.forward = torch.compile(block.forward, dynamic=False)


def own(tensor: Tensor) -> Tensor:
    """This process's part; changing it in place changes the tensor."""
    return tensor.to_local() if _is_part(tensor) else tensor  # type: ignore[attr-defined]


def whole(state: Any, keep: bool = True) -> Any:
    """A state, of dicts and lists, with whole tensors in main memory in place of parts; other tensors as they are.

    Args:
        state: What to gather.
        keep: Whether this process wants them; one that does not gives its parts, and gets None for each.
    """
    if isinstance(state, dict):
        return {name: whole(part, keep) for name, part in state.items()}
    if isinstance(state, list):
        return [whole(part, keep) for part in state]
    if not _is_part(state):
        return state
    gathered = state.detach().full_tensor()
    return gathered.cpu() if keep else None


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, what this process keeps of another one of its shape; all of it if it keeps that whole."""
    if not _is_part(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    # Everyone has read the same file, so nothing need be sent.
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


@torch.no_grad()
def load(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], strict: bool = True) -> None:
    """Give a model and its optimizer a whole state: "weights" and "optimizer", as their ``state_dict`` told.

    The optimizer's settings stay those of now, which a resumed run may have changed.
    """
    here = model.state_dict()
    weights = {name: part(tensor, here[name]) for name, tensor in state["weights"].items()}
    model.load_state_dict(weights, strict=strict)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered = {
        number: {name: part(value, parameters[number]) for name, value in of_one.items()}
        for number, of_one in state["optimizer"]["state"].items()
    }
    pairs = zip(optimizer.param_groups, state["optimizer"]["param_groups"], strict=True)
    groups = [{**now, "params": told["params"]} for now, told in pairs]
    optimizer.load_state_dict({"state": remembered, "param_groups": groups})


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """A model that can be run and read as one that is whole, by each process alone, for the length of a block."""
    pieces: list[Any] = [module for module in model.modules() if hasattr(module, "unshard")]
    for piece in pieces:
        piece.set_reshard_after_forward(False, recurse=False)
        piece.unshard()
    try:
        yield
    finally:
        for piece in pieces:
            piece.reshard()
            piece.set_reshard_after_forward(piece is not model, recurse=False)


@contextmanager
def told_whole(model: nn.Module, keep: bool) -> Iterator[None]:
    """A model whose ``state_dict`` is whole, where it is wanted (``keep``), for the length of a ``with`` block."""
    weights = whole({name: tensor for name, tensor in model.state_dict().items() if _is_part(tensor)}, keep)
    handle = model.register_state_dict_post_hook(lambda module, state, *rest: state.update(weights))
    try:
        yield
    finally:
        handle.remove()


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights that have, in any process, a number that is not finite."""
    names = [name for name, _ in model.named_parameters()]
    bad = torch.stack([(~own(weight).isfinite()).any() for weight in model.parameters()])
    if any(_is_part(weight) for weight in model.parameters()):
        bad = bad.to(torch.int32)
        distributed.all_reduce(bad, distributed.ReduceOp.MAX)
    return [name for name, flag in zip(names, bad.tolist(), strict=True) if flag]


def with_whole_matrices(work: Callable[[Tensor], Tensor], parts: list[Tensor], like: Tensor) -> Tensor:
    """Do with whole matrices what cannot be done with rows of them; each process does its share of the matrices.

    Args:
        work: (n, rows, columns) -> the same shape, each matrix on its own.
        parts: This process's rows of some matrices of equal shape.
        like: A weight cut as these are.

    Returns:
        Its rows of the results, stacked.
    """
    stacked = torch.stack(parts)
    if not _is_part(like):
        return work(stacked)
    (count, held, columns), rows, world = stacked.shape, like.shape[0], distributed.get_world_size()
    # Every process holds as many rows as the first, but for the last ones, and takes as many matrices.
    most, each = -(-rows // world), -(-count // world)
    sent = stacked.new_zeros(world * each, most, columns)
    sent[:count, :held] = stacked
    matrices = _exchanged(sent).view(world, each, most, columns).transpose(0, 1).reshape(each, -1, columns)
    done = torch.zeros_like(matrices)
    done[:, :rows] = work(matrices[:, :rows])
    back = _exchanged(done.view(each, world, most, columns).transpose(0, 1).contiguous())
    return back.view(world * each, most, columns)[:count, :held]


def _exchanged(parts: Tensor) -> Tensor:
    """Process j gets the j-th of equal parts, along the first axis, of all the others; they come in their order."""
    received = torch.empty_like(parts)
    distributed.all_to_all_single(received, parts)
    return received


def _is_part(tensor: Any) -> bool:
    """Whether it is one of torch's distributed tensors, of which a process holds a part."""
    return hasattr(tensor, "full_tensor")
