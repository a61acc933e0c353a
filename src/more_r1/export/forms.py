"""The rows that each trainer reads, as its documentation and its own reader have them.

trl           `prompt` and `completion` as messages of typed parts, `images` beside them: TRL's docs, "Vision datasets" of
              dataset_formats, filled by `trl.data_utils.prepare_multimodal_messages`. Further columns reach the rewards.
llamafactory  sharegpt with `<image>` in the text and a list `images`: hiyouga/LLaMA-Factory, data/README.md, read by
              `SharegptDatasetConverter` of src/llamafactory/data/converter.py; turns are a user's and an assistant's.
ms-swift      `messages` with `<image>`, `images`, for GRPO no assistant and any further keys: modelscope/ms-swift,
              docs/source_en/Customization/Custom-dataset.md; `load_file` of swift/llm/template/vision_utils.py opens the paths.
verl          volcengine/verl, for RL examples/data_preprocess/geo3k.py, read by `RLHFDataset._build_messages` of
              verl/utils/dataset; for SFT the same with `messages`, read by `MultiTurnSFTDataset._build_messages`.

All but TRL find the places of pictures by the text `<image>`: no other text may hold it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from more_r1.reasoning.prompt import Part, Picture, Prompt
from more_r1.reasoning.trace import Trace
from more_r1.training.samples import Sample

Trainer = Literal["trl", "llamafactory", "ms-swift", "verl"]
TRAINERS: tuple[Trainer, ...] = get_args(Trainer)
IMAGE = "<image>"

_STRING = pa.string()
_PAIR = [("document", _STRING), ("object", _STRING), ("entity", _STRING)]
_PARTS = pa.list_(pa.struct([("type", _STRING), ("text", _STRING)]))
_MESSAGES = pa.list_(pa.struct([("role", _STRING), ("content", _STRING)]))
_MESSAGES_OF_PARTS = pa.list_(pa.struct([("role", _STRING), ("content", _PARTS)]))
IMAGES = ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", _STRING)])))
COLUMNS: dict[tuple[Trainer, bool], list[tuple[str, pa.DataType]]] = {
    ("trl", True): [("prompt", _MESSAGES_OF_PARTS), ("completion", _MESSAGES_OF_PARTS), IMAGES, ("label", _STRING), *_PAIR],
    ("trl", False): [("prompt", _MESSAGES_OF_PARTS), IMAGES, ("label", _STRING), *_PAIR],
    ("verl", True): [("messages", _MESSAGES), IMAGES, ("label", _STRING), *_PAIR],
    ("verl", False): [
        ("data_source", _STRING),
        ("prompt", _MESSAGES),
        IMAGES,
        ("ability", _STRING),
        ("reward_model", pa.struct([("style", _STRING), ("ground_truth", _STRING)])),
        ("extra_info", pa.struct([("split", _STRING), ("index", pa.int64()), *_PAIR])),
    ],
}
"""Of the trainers that read Parquet, for SFT (True) and RL."""


@dataclass(frozen=True)
class Item:
    """A pair, how it is asked about, and the completion to learn: None where a reward is to be earned."""

    index: int
    sample: Sample
    prompt: Prompt
    completion: str | None

    @property
    def pair(self) -> dict[str, str]:
        document, object, (start, end) = self.sample.key
        return {"document": document, "object": object, "entity": f"{start}-{end}"}


def row(trainer: Trainer, item: Item) -> dict[str, Any]:
    """All of a row but its `images`, which are those of the prompt in their order."""
    return _ROWS[trainer](item)


def harmless(completion: str) -> str:
    """The completion with every `<` that begins none of our own tags made a `‹`, as words of documents have it.

    Trainers take `<image>`, `<video>` and special tokens of a tokenizer for more than words wherever they stand.
    """
    return re.sub(r"<(?!/?(?:think|answer)>)", "‹", completion)


def _trl(item: Item) -> dict[str, Any]:
    parts = [_part(part) for segment in item.prompt.segments for part in segment]
    found: dict[str, Any] = {"prompt": [{"role": "user", "content": parts}], "label": item.sample.label, **item.pair}
    if item.completion is not None:
        found["completion"] = [{"role": "assistant", "content": [_part(harmless(item.completion))]}]
    return found


def _llamafactory(item: Item) -> dict[str, Any]:
    # Its PPO learns from prompts alone, but a conversation without an assistant's turn is skipped as broken.
    answer = Trace((), item.sample.label).render() if item.completion is None else harmless(item.completion)
    return {"messages": [_user(item), _assistant(answer)], "label": item.sample.label, **item.pair}


def _swift(item: Item) -> dict[str, Any]:
    if item.completion is None:
        return {"messages": [_user(item)], "solution": item.sample.label, **item.pair}
    return {"messages": [_user(item), _assistant(harmless(item.completion))], **item.pair}


def _verl(item: Item) -> dict[str, Any]:
    if item.completion is not None:
        messages = [_user(item), _assistant(harmless(item.completion))]
        return {"messages": messages, "label": item.sample.label, **item.pair}
    return {
        "data_source": "more_r1",
        "prompt": [_user(item)],
        "ability": "relation",
        "reward_model": {"style": "rule", "ground_truth": item.sample.label},
        "extra_info": {"split": "train", "index": item.index, **item.pair},
    }


_ROWS: dict[Trainer, Callable[[Item], dict[str, Any]]] = {
    "trl": _trl,
    "llamafactory": _llamafactory,
    "ms-swift": _swift,
    "verl": _verl,
}


def _part(part: Part) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": part}


def _user(item: Item) -> dict[str, str]:
    parts = [part for segment in item.prompt.segments for part in segment]
    return {"role": "user", "content": "".join(IMAGE if isinstance(part, Picture) else part for part in parts)}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
