"""Rollouts that vLLM draws: the same prompts, groups and ends as in models/sampling.py, by numbers of vLLM's own.

vLLM computes in other kernels, so that what it draws is not exactly the policy's; the log-probabilities that come with a
rollout are those by which it was drawn, and training can correct by them (training/objective.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Protocol

from more_r1.models.decode import stop_ids, vision_ids
from more_r1.models.engine import EngineError
from more_r1.models.load import Backbone
from more_r1.models.lora import Lora
from more_r1.models.manner import Manner
from more_r1.models.sampling import STOP, Rollout, Sampling
from more_r1.models.vllm.prompt import VllmPrompt, vllm_prompt
from more_r1.models.vllm.start import start_vllm
from more_r1.reasoning.prompt import Prompt

# vLLM's seeds have 63 bits, and it counts them up within a group.
_SEEDS = 2**62
# The ranks that vLLM makes room for.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Options that are not to choose.
OURS = frozenset(["model", "logprobs_mode", "enable_lora", "max_lora_rank"])
# What vLLM takes of a GPU that training uses, too, as in TRL's recipes.
GPU_SHARE = 0.3


@dataclass(frozen=True)
class Drawn:
    """A completion as vLLM says it; `logprobs` are those of the distribution that each token was drawn from."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: str
    """Why it ended: "stop" and "length" are what is to be."""


class Machine(Protocol):
    """A vLLM, wherever it is. All methods raise EngineError where it cannot go on."""

    @property
    def room(self) -> int:
        """Tokens of a prompt and its completion at most."""
        ...

    def complete(
        self, prompts: Sequence[VllmPrompt], params: Sequence[Mapping[str, Any]]
    ) -> list[tuple[list[int], list[Drawn]]]:
        """Of each prompt: its tokens as vLLM read them, and what was drawn. `params` are those of vLLM's SamplingParams."""
        ...

    def take_weights(self, folder: Path) -> None:
        """Compute from now on with the weights of this model folder."""
        ...

    def take_adapter(self, folder: Path) -> None:
        """Compute from now on with this adapter beside the weights that are there."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class VllmRollouts:
    """Rollouts of a model whose weights a machine was given."""

    def __init__(self, backbone: Backbone, machine: Machine) -> None:
        self.encoder, self.machine = backbone.encoder, machine
        self._stops, self._banned = stop_ids(backbone), dict.fromkeys(vision_ids(backbone), -100.0)

    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[Sequence[int]], sampling: Sampling, max_new_tokens: int
    ) -> list[list[Rollout]]:
        """As models.sampling.sample, but for the numbers that are drawn by: those of a group follow from its first seed.

        Raises EngineError; ValueError and DocumentError as Encoder.prompt does.
        """
        asked = [vllm_prompt(self.encoder, prompt) for prompt in prompts]
        longest = max((len(prompt.ids) for prompt in asked), default=0)
        if longest + max_new_tokens > self.machine.room:
            raise EngineError(
                f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} are above the {self.machine.room} tokens "
                "that vLLM was started with; lower max_new_tokens, or give vLLM a larger max_model_len"
            )
        common = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": max_new_tokens,
            "logprobs": 0,
            "logit_bias": self._banned,
            "stop": [STOP],
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "stop_token_ids": sorted(self._stops),
        }
        params = [common | {"n": len(group), "seed": group[0] % _SEEDS} for group in seeds]
        groups = []
        for prompt, (read, drawn) in zip(asked, self.machine.complete(asked, params), strict=True):
            if tuple(read) != prompt.ids:
                raise EngineError("vLLM reads a prompt as other tokens than ours; start it as docs/rollouts.md says")
            groups.append([self._rollout(one) for one in drawn])
        return groups

    def _rollout(self, drawn: Drawn) -> Rollout:
        if drawn.reason not in ("stop", "length") or not drawn.ids:
            raise EngineError(
                f"vLLM has not finished its rollouts ({drawn.reason}); does something else pause or end it? Run the same "
                "command again, which goes on from the last checkpoint"
            )
        stopped = drawn.ids[-1] in self._stops
        text = self.encoder.decode(drawn.ids[:-1] if stopped else drawn.ids)
        return Rollout(text, drawn.ids, drawn.logprobs, drawn.reason == "stop")


class Here:
    """vLLM in processes of this one's own, one for each process of a training; a Machine."""

    def __init__(self, manner: Manner, lora: Lora | None, gpu: int | None, options: Mapping[str, Any]) -> None:
        """As `start_vllm`, which raises what this raises. `manner` says how the model is asked in training."""
        self._started = start_vllm(manner, {"gpu_memory_utilization": GPU_SHARE, **drawing(lora), **options}, gpu)
        self._adapter: Any = None
        from vllm.platforms import current_platform

        if lora is None and current_platform.is_cpu():
            try:
                refuse_tied(manner)
            except EngineError:
                self.close()
                raise

    @property
    def room(self) -> int:
        """As Machine has it."""
        return self._started.room

    def complete(
        self, prompts: Sequence[VllmPrompt], params: Sequence[Mapping[str, Any]]
    ) -> list[tuple[list[int], list[Drawn]]]:
        """As Machine has it."""
        from vllm import SamplingParams

        requests = [prompt.request() for prompt in prompts]
        given = [SamplingParams(**each) for each in params]
        outputs = self._alive(lambda llm: llm.generate(requests, given, use_tqdm=False, lora_request=self._adapter))
        return [(list(output.prompt_token_ids), [_drawn(one) for one in output.outputs]) for output in outputs]

    def take_weights(self, folder: Path) -> None:
        """As Machine has it."""

        def reload(llm: Any) -> None:
            llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder.resolve())})
            # What was computed with the old ones. The worker has dropped its pictures; the scheduler must know.
            llm.llm_engine.reset_encoder_cache()
            llm.reset_mm_cache()
            if not llm.reset_prefix_cache():
                raise EngineError("vLLM keeps what it computed with old weights; something else asks it at the same time")

        self._alive(reload)

    def take_adapter(self, folder: Path) -> None:
        """As Machine has it."""
        from vllm.lora.request import LoRARequest

        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        self._adapter = LoRARequest(adapter_name(folder), number, str(folder.resolve()))

    def close(self) -> None:
        """As Machine has it."""
        self._started.close()

    def _alive(self, call: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return call(self._started.llm)
        except EngineDeadError as error:
            raise EngineError(
                "vLLM's engine has died, its own messages say of what; if memory was short, free some; then run the same "
                "command again, which goes on from the last checkpoint"
            ) from error


def drawing(lora: Lora | None) -> dict[str, Any]:
    """What vLLM must be told to draw for a training, wherever it is. Raises EngineError for adapters that it has no room
    for."""
    told: dict[str, Any] = {"logprobs_mode": "processed_logprobs"}
    return told if lora is None else told | {"enable_lora": True, "max_lora_rank": _room_for(lora)}


def _room_for(lora: Lora) -> int:
    """The rank that vLLM must make room for."""
    if lora.rank > _RANKS[-1]:
        raise EngineError(f"lora.rank={lora.rank} is above the {_RANKS[-1]} that vLLM takes; lower it, or set rollout=local")
    return next(rank for rank in _RANKS if rank >= lora.rank)


def refuse_tied(manner: Manner) -> None:
    """Raises EngineError for a model whose head is its embedding: on a CPU vLLM (0.32) keeps a copy, which new weights do not
    reach."""
    if manner.config.tie_word_embeddings:  # what transformers heeds, whatever the part of the text model says
        raise EngineError(
            f"{manner.name}: on a CPU vLLM does not take new weights of a head that is tied to the embedding; train adapters "
            "(lora), or set rollout=local"
        )


def adapter_name(folder: Path) -> str:
    """Names an adapter by its weights: vLLM keeps what it computed under an adapter's name."""
    with (folder / "adapter_model.safetensors").open("rb") as file:
        return f"more-r1-{file_digest(file, 'sha256').hexdigest()[:32]}"


def _drawn(output: Any) -> Drawn:
    ids = tuple(output.token_ids)
    logprobs = (each[id].logprob for id, each in zip(ids, output.logprobs, strict=True))
    return Drawn(ids, tuple(logprobs), str(output.finish_reason))
