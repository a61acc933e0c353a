"""vLLM as the engine: the same prompts, the same answers, computed by a server's machinery in processes of its own.

Its prefix cache does what the forest does here: instruction and document are computed once for all pairs, a trace once for all
its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from more_r1.document import DocumentError
from more_r1.models.decode import picture_ids
from more_r1.models.engine import EngineError
from more_r1.models.labels import branches
from more_r1.models.manner import Manner, load_manner
from more_r1.models.sampling import STOP, Sampling
from more_r1.models.vllm.prompt import VllmPrompt, vllm_prompt
from more_r1.models.vllm.start import Started, start_vllm
from more_r1.reasoning.pattern import ANSWER, TRACE, WORDS, beginning, steps_so_far
from more_r1.reasoning.prompt import Prompt
from more_r1.reasoning.trace import STEPS, parse_trace
from more_r1.schema import Schema

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams

# Tokens that a step gets where the model left no room for it.
_LEAST = 8
# Tokens whose log-probabilities vLLM says in one request.
_NAMES = 128


@dataclass
class _Row:
    """A prompt, and the tokens of its completion so far."""

    prompt: Prompt
    seed: int | None
    ids: list[int] = field(default_factory=list)


class Vllm:
    """A model that vLLM holds; an Engine. `close` ends its processes, which otherwise end with this one."""

    def __init__(self, started: Started, manner: Manner, stops: frozenset[int]) -> None:
        """`stops`: the tokens that end a completion."""
        self.llm, self.room, self.close = started.llm, started.room, started.close
        self.encoder, self.form, self.temperature = manner.encoder, manner.form, manner.temperature
        self.schema = manner.schema
        self._stops = stops
        self._banned = dict.fromkeys(picture_ids(manner.config), -100.0)

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
        keep_form: Schema | None = None,
        *,
        types: bool = False,
        sampling: Sampling | None = None,
        seeds: Sequence[int] = (),
    ) -> list[str]:
        """As models.generate.generate. Draws are as reproducible, but not the local ones: vLLM draws by numbers of its own.

        `progress` is told when all are done. Raises EngineError; DocumentError for a prompt that is too long.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        rows = [_Row(prompt, seeds[place] if sampling else None) for place, prompt in enumerate(prompts)]
        if keep_form is None:
            # A drawn completion ends with its answer, as sampling.sample has it.
            stop = {"stop": [STOP], "include_stop_str_in_output": True} if sampling else {"detokenize": False}
            self._go_on(rows, max_new_tokens, sampling, 0, [{"logit_bias": self._banned, **stop} for _ in rows])
        else:
            room = max_new_tokens - max(len(self._ids(f"{label}{STOP}")) for label in keep_form.labels)
            if self.form.reasoning == "steps":
                self._reason(rows, room, sampling)
            else:
                for row in rows:
                    row.ids = self._ids("<answer>")
            self._answer(rows, keep_form, types, sampling)
        if progress is not None:
            progress(len(rows))
        return [self.encoder.decode(row.ids) for row in rows]

    def label_scores(
        self, prompts: Sequence[Prompt], completions: Sequence[str], schema: Schema
    ) -> list[tuple[float, ...] | None]:
        """As models.labels.label_scores: a request of one token at each place behind the trace where a label can be."""
        found = list(branches(self.encoder, self.form, completions, schema))
        asked = [(place, trace, before, ids) for place, trace, labels in found for before, ids in _places(labels)]
        outputs = self._ask(
            [(prompts[place], (*trace, *before)) for place, trace, before, _ in asked],
            [self._params(1, None, None, logprob_token_ids=ids, detokenize=False) for *_, ids in asked],
        )
        logprobs: dict[tuple[int, tuple[int, ...]], float] = {}
        for (place, _, before, ids), output in zip(asked, outputs, strict=True):
            [known] = output.logprobs or []
            logprobs |= {(place, (*before, id)): known[id].logprob for id in ids}
        scores: list[tuple[float, ...] | None] = [None] * len(prompts)
        for place, _, labels in found:
            sums = [sum(logprobs[place, label[: size + 1]] for size in range(len(label))) for label in labels]
            scores[place] = tuple(torch.tensor(sums, dtype=torch.float64).log_softmax(-1).tolist())
        return scores

    def _reason(self, rows: Sequence[_Row], room: int, sampling: Sampling | None) -> None:
        """Six steps and the mark of the answer. A trace that fills its room before that is cut off, and goes on with a few
        words a step."""
        marks = sum(len(self._ids(f" Step {number}:")) + _LEAST for number in range(1, STEPS + 1)) + len(self._ids(ANSWER))
        self._go_on(rows, max(room - marks, _LEAST), sampling, 0, [_held(TRACE) for _ in rows])
        cut = [row for row in rows if not self._text(row).endswith(ANSWER)]
        for number in range(1, STEPS + 1):
            short = [row for row in cut if len(steps_so_far(self._text(row))) < number]
            for row in short:
                row.ids = self._ids(beginning(steps_so_far(self._text(row))) + f" Step {number}:")
            self._go_on(short, _LEAST, sampling, number, [_held(WORDS) for _ in short])
        for row in cut:
            row.ids = self._ids(beginning(steps_so_far(self._text(row))) + ANSWER)

    def _answer(self, rows: Sequence[_Row], schema: Schema, types: bool, sampling: Sampling | None) -> None:
        """A label of the schema, with `types` one that step 4 allows, and the end, token by token as they are spelled here: a
        grammar would let a label be spelled in any way."""
        spelled = {label: [*self._ids(label), *self._ids(STOP)] for label in schema.labels}
        left = []
        for row in rows:
            trace = parse_trace(self._text(row) + f"{schema.labels[0]}{STOP}", schema, self.form.reasoning)
            allowed = schema.candidates(*trace.types) if types and trace.types else schema.labels
            left.append([spelled[label] for label in allowed])
        for place in range(max(map(len, spelled.values()))):
            following = [sorted({label[place] for label in labels if len(label) > place}) for labels in left]
            # Where all that is left agrees, there is nothing to ask.
            asked = [number for number, ids in enumerate(following) if len(ids) > 1]
            options = [{"allowed_token_ids": following[number]} for number in asked]
            self._go_on([rows[number] for number in asked], 1, sampling, STEPS + 1 + place, options)
            for row, ids, labels in zip(rows, following, left, strict=True):
                row.ids += ids if len(ids) == 1 else []
                labels[:] = [label for label in labels if label[place : place + 1] == row.ids[-1:]]

    def _go_on(
        self, rows: Sequence[_Row], room: int, sampling: Sampling | None, turn: int, options: Sequence[dict[str, Any]]
    ) -> None:
        """Lengthen completions by up to `room` tokens, each by vLLM's options; a token that ends them is left out.

        `turn` tells apart the draws of one row's requests.
        """
        params = [self._params(room, sampling, row.seed, turn, **own) for row, own in zip(rows, options, strict=True)]
        for row, output in zip(rows, self._ask([(row.prompt, row.ids) for row in rows], params), strict=True):
            ids = list(output.token_ids)
            row.ids = row.ids + (ids[:-1] if ids and ids[-1] in self._stops else ids)

    def _params(self, room: int, sampling: Sampling | None, seed: int | None, turn: int = 0, **more: Any) -> SamplingParams:
        from vllm import SamplingParams

        if sampling is None or seed is None:
            return SamplingParams(max_tokens=room, temperature=0, **more)
        # vLLM's seeds have 63 bits.
        own = int.from_bytes(sha256(f"{seed} {turn}".encode()).digest()[:7], "little")
        return SamplingParams(
            max_tokens=room, temperature=sampling.temperature, top_p=sampling.top_p, seed=own, skip_special_tokens=False, **more
        )

    def _ask(
        self, asked: Sequence[tuple[Prompt, Sequence[int]]], params: Sequence[SamplingParams]
    ) -> Iterator[CompletionOutput]:
        """What vLLM says behind prompts and the beginnings of their completions."""
        if not asked:
            return
        from vllm.v1.engine.exceptions import EngineDeadError

        requests, wholes = [], []
        prepared: dict[Prompt, VllmPrompt] = {}
        for (prompt, behind), each in zip(asked, params, strict=True):
            if prompt not in prepared:
                prepared[prompt] = vllm_prompt(self.encoder, prompt)
            wholes.append([*prepared[prompt].ids, *behind])
            if len(wholes[-1]) + (each.max_tokens or 0) > self.room:
                raise DocumentError(
                    f"{len(wholes[-1])} tokens and {each.max_tokens} to come are above the {self.room} that vLLM was started "
                    "with; shorten the text, or in Python give load_vllm a larger max_model_len"
                )
            requests.append(prepared[prompt].request(behind))
        try:
            outputs = self.llm.generate(requests, list(params), use_tqdm=False)
        except EngineDeadError as error:
            raise EngineError(
                "vLLM's engine has died, its own messages say of what; if memory was short, free some; then run the same "
                "command again, which with --out goes on where it was"
            ) from error
        for whole, output in zip(wholes, outputs, strict=True):
            if list(output.prompt_token_ids or ()) != whole:
                raise EngineError("vLLM reads a prompt as other tokens than ours; use the vLLM of the docs, or --engine local")
            yield output.outputs[0]

    def _ids(self, text: str) -> list[int]:
        return list(self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, row: _Row) -> str:
        return self.encoder.decode(row.ids)


def load_vllm(name_or_dir: str | Path, **options: Any) -> Vllm:
    """Start vLLM with a Qwen2.5-VL, named as for `load_backbone`, and with options of its own, as in `tensor_parallel_size=4`;
    see `start_vllm`, which raises what this raises."""
    manner = load_manner(name_or_dir).worded()
    started = start_vllm(manner, options)
    try:
        stops = GenerationConfig.from_pretrained(manner.name).eos_token_id
    except OSError:  # a folder need not have one
        stops = None
    known = stops if isinstance(stops, list) else [] if stops is None else [stops]
    return Vllm(started, manner, frozenset([manner.encoder.eos_id, *known]))


def _held(pattern: str) -> dict[str, Any]:
    """Holds a request to a regular expression; one for each request, for vLLM writes into them."""
    from vllm.sampling_params import StructuredOutputsParams

    return {"structured_outputs": StructuredOutputsParams(regex=pattern)}


def _places(labels: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Each beginning of a label and what may follow it; neighbours share all but their last tokens."""
    found: dict[tuple[int, ...], set[int]] = {}
    for label in labels:
        for size, id in enumerate(label):
            found.setdefault(label[:size], set()).add(id)
    pieces = ((before, sorted(ids)) for before, ids in sorted(found.items()))
    return [(before, ids[start : start + _NAMES]) for before, ids in pieces for start in range(0, len(ids), _NAMES)]
