"""Starts vLLM so that it computes what the model computes here: our tokens, our pictures, the same precision."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch

from more_r1.models.engine import EngineError
from more_r1.models.families.qwen import MAX_ASPECT
from more_r1.models.lifeline import end_with_me
from more_r1.models.manner import Manner, ModelError

if TYPE_CHECKING:
    from vllm import LLM

# Prompt and completion; what vLLM must be able to hold of one.
MODEL_TOKENS = 8192
_CPU_CACHE_BYTES = 2**30
# By these, and more of torchrun's, a process knows its place among those of a run.
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Started:
    """A vLLM that runs in processes of its own, which end with this one. `room`: tokens of a prompt and its completion."""

    def __init__(self, llm: LLM, room: int, processes: Sequence[BaseProcess]) -> None:
        self.llm, self.room = llm, room
        self._watcher = end_with_me([process.pid for process in processes if process.pid])
        if processes:
            Thread(target=_tell_of_death, args=(llm, processes), daemon=True).start()

    def close(self) -> None:
        """End vLLM's processes."""
        self.llm.llm_engine.engine_core.shutdown()
        self._watcher.kill()
        self._watcher.wait()


def settings(manner: Manner) -> dict[str, Any]:
    """What vLLM must be told of a model, on any machine; raises ModelError for one that it is not tried with."""
    if manner.config.model_type != "qwen2_5_vl":
        raise ModelError(f"{manner.name}: vLLM is tried with Qwen2.5-VL only; leave it out")
    unit = manner.encoder.processor.image_processor.patch_size * manner.encoder.merge
    # A sliver has its whole length in patches even where few pixels are allowed.
    most = max(manner.form.whole_pixels, manner.form.crop_pixels, MAX_ASPECT * unit**2)
    return {
        "max_model_len": min(MODEL_TOKENS, manner.config.text_config.max_position_embeddings),
        "load_format": "safetensors",
        "limit_mm_per_prompt": {"image": 2, "video": 0},
        # Pictures come at their size.
        "mm_processor_kwargs": {"do_resize": False, "size": {"shortest_edge": unit**2, "longest_edge": most}},
        "enable_prefix_caching": True,
    }


def start_vllm(manner: Manner, options: Mapping[str, Any], gpu: int | None = None) -> Started:
    """Start vLLM with this model, on one GPU of those that this process sees if `gpu` is its number; `options` are vLLM's own
    (EngineArgs), as in `{"tensor_parallel_size": 4}`. A script that calls this needs `if __name__ == "__main__":`, for vLLM
    starts processes.

    The CPU computes in float32, as it does without vLLM. Raises ModelError, and EngineError if vLLM is missing or does not
    start.
    """
    ours = settings(manner) | {"disable_log_stats": False}
    # Its messages must not get among our output, nor figures of its use out of the house.
    environment = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    for key, value in environment.items():
        os.environ.setdefault(key, value)
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM is missing ({error}); in an environment of its own: pip install -e '.[vllm]' (docs/rollouts.md)"
        ) from error
    room = options.get("max_model_len", ours["max_model_len"])
    if not isinstance(room, int):
        raise EngineError(f"max_model_len={room!r} is no number of tokens")
    if current_platform.is_cpu():
        # Whole prompts: vLLM dies of a draw with a seed (0.32, "CPU Generator does not use offset") when it splits its prompt.
        whole = max(room, ours["max_model_len"])
        ours |= {"dtype": "float32", "enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": whole}
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            ours["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    before = set(active_children())
    try:
        with (
            _by_itself(),
            nullcontext() if gpu is None or current_platform.is_cpu() else _alone(current_platform.device_control_env_var, gpu),
        ):
            llm = LLM(manner.name, **{**ours, **options})
    except Exception as error:  # in its own process, and for many reasons
        reason = " ".join(str(error).split())[:300]
        raise EngineError(
            f"{manner.name}: vLLM does not start ({reason}); its own messages say why. If memory is short, free some, or give "
            "vLLM a smaller max_model_len or gpu_memory_utilization"
        ) from error
    return Started(llm, room, [child for child in active_children() if child not in before])


def _tell_of_death(llm: LLM, processes: Sequence[BaseProcess]) -> None:
    """Wakes whoever waits for processes that have ended: vLLM (0.32) notes that they have, and tells nobody."""
    from vllm.v1.engine.exceptions import EngineDeadError

    wait([process.sentinel for process in processes])
    core: Any = llm.llm_engine.engine_core
    core.resources.engine_dead = True  # what is asked from now on is refused
    core.outputs_queue.put(EngineDeadError())
    for waiting in list(core.utility_results.values()):
        waiting.set_exception(EngineDeadError())


@contextmanager
def _by_itself() -> Iterator[None]:
    """Processes that are started take no part in the run that this one is one of several of: vLLM would wait for the others."""
    names = [name for name in os.environ if name in _LAUNCHED or name.startswith(("TORCHELASTIC_", "GROUP_", "ROLE_"))]
    taken = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(taken)


@contextmanager
def _alone(variable: str, gpu: int) -> Iterator[None]:
    """Processes that are started see this GPU only."""
    seen = os.environ.get(variable)
    names = seen.split(",") if seen else [str(number) for number in range(torch.cuda.device_count())]
    os.environ[variable] = names[gpu]
    try:
        yield
    finally:
        if seen is None:
            del os.environ[variable]
        else:
            os.environ[variable] = seen
