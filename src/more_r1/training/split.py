"""Models that are split over the processes of a run, by FSDP2 or DeepSpeed's ZeRO, as the file of `accelerate launch` says.

A process then has a part of each weight, and all processes must call the model equally often. A vision tower that does not
learn stays whole on each: it is small beside the text model, and it is called where there are new pictures, not in step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env
from torch import nn

from more_r1.models.vision import set_vision_aside, vision_parameters, with_vision
from more_r1.training.recipe import RecipeError


def accelerator_of(policy: nn.Module, **settings: Any) -> Accelerator:
    """The accelerator of this run, as `accelerate launch` started it, for what is to be trained.

    Weights that learn and are in half precision are learnt in single precision, for the steps of an optimizer are too small for
    half; they are computed with in bfloat16 then, unless the launch says how. Raises RecipeError for float16.
    """
    half = [p for p in policy.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if half and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no":
        settings["mixed_precision"] = "bf16"
    # A step of ours is as many backward passes as it says itself; the launch file would have them divided once more.
    accelerator = Accelerator(gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1), **settings)
    if accelerator.mixed_precision == "fp16":
        raise RecipeError(
            "mixed precision fp16 is not supported, its loss scaling would be taken for divergence; launch with bf16"
        )
    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate splits models on accelerators only. torch and DeepSpeed can do it on CPUs, where it can be tried out.
        state = accelerator.state
        if parse_flag_from_env("ACCELERATE_USE_FSDP"):
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            if accelerator.mixed_precision != "no":
                state.fsdp_plugin.set_mixed_precision(accelerator.mixed_precision)
            state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        elif parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
            state.deepspeed_plugins = DeepSpeedPlugin()
            state.deepspeed_plugins.set_mixed_precision(accelerator.mixed_precision)
            state.distributed_type = PartialState().distributed_type = DistributedType.DEEPSPEED
    if accelerator.is_fsdp2 and accelerator.mixed_precision != "no":
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # accelerate would have log-probabilities, and the sums of gradients over processes, in half precision, too.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    if not splits(accelerator):  # DeepSpeed does so by itself; for FSDP2 see `prepare`
        for parameter in half:
            parameter.data = parameter.data.float()
    return accelerator


def splits(accelerator: Accelerator) -> bool:
    """Whether the model is split: FSDP2, or DeepSpeed's ZeRO (which at stage 2 splits gradients and optimizer alone)."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def prepare(
    accelerator: Accelerator, policy: nn.Module, model: Any, optimizer: torch.optim.Optimizer, clip: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The policy around `model`, and its optimizer, as the accelerator wraps them. Raises RecipeError for FSDP of version 1."""
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise RecipeError("FSDP of version 1 is not supported; set fsdp_version: 2, see recipes/accelerate/fsdp2.yaml")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # DeepSpeed clips by itself, and asks for a batch size that our batches do not have. A step is one backward pass or
        # more, which it would divide by what the launch file says.
        accelerator.state.deepspeed_plugin.deepspeed_config |= {
            "gradient_clipping": clip,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
        }
    if splits(accelerator) and not any(parameter.requires_grad for parameter in vision_parameters(model)):
        set_vision_aside(model)
    if accelerator.is_fsdp2:
        # What is gathered at a time: accelerate asks what it wraps for these, and would take the whole for one unit.
        there = {type(module).__name__ for module in policy.modules()}
        policy._no_split_modules = sorted(there.intersection(model._no_split_modules))  # type: ignore[assignment]
    with _as_stored(accelerator):
        policy, optimizer = accelerator.prepare(policy, optimizer)
    if accelerator.is_fsdp2:
        policy._apply(lambda tensor: tensor.float() if tensor.requires_grad else tensor)  # type: ignore[no-untyped-call]
        # What FSDP does at the first call of the whole; parts of the model may be called before it, see `whole`.
        policy._get_fsdp_state()._lazy_init()  # type: ignore[operator]
    return policy, optimizer


@contextmanager
def _as_stored(accelerator: Accelerator) -> Iterator[None]:
    """While this lasts, accelerate splits weights for FSDP2 in the precision in which they are.

    By itself it makes all that learn float32 before it splits them, and a whole model in float32 is more than a GPU has that is
    to hold a part of one.
    """
    state, precision = accelerator.state, accelerator.mixed_precision
    if accelerator.is_fsdp2:
        state._mixed_precision = "no"
    try:
        yield
    finally:
        if accelerator.is_fsdp2:
            state._mixed_precision = precision


@contextmanager
def whole(accelerator: Accelerator, policy: nn.Module, model: Any) -> Iterator[None]:
    """While this lasts, every process has all of the model in `policy`, in the precision it computes in; no gradients.

    Parts of the model may then be called by one process alone. All processes enter and leave together.
    """
    with ExitStack() as stack, torch.no_grad():
        if accelerator.is_fsdp2:
            stack.enter_context(_unsharded(policy))
        elif accelerator.distributed_type == DistributedType.DEEPSPEED and policy.zero_optimization_partition_weights():  # type: ignore[operator]
            stack.enter_context(_gathered(policy))
        stack.enter_context(with_vision(model))
        yield


@contextmanager
def _unsharded(policy: nn.Module) -> Iterator[None]:
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in policy.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # The root's own weights stay between its forward and backward pass, which follow at once.
            part.set_reshard_after_forward(part is not policy, recurse=False)
            part.reshard()


@contextmanager
def _gathered(engine: Any) -> Iterator[None]:
    import deepspeed

    offload = engine.optimizer.parameter_offload
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), modifier_rank=None):
        # The hooks would take the weights apart again after each module.
        offload._remove_module_hooks()
        try:
            yield
        finally:
            offload.setup_zero_stage3_hooks()
