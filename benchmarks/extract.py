"""Extraction from documents of 5 pairs: `more_r1.extract` against transformers' `generate`, same model, same answers, one run.

    more-r1 data synth data/embedded
    python benchmarks/extract.py

The peer is what a user of transformers would write: a prompt for each pair with its two pictures, through the processor in
left-padded batches, one `generate` call a batch. A batch is one document, or several. Both sides begin with documents and
end with labels: decoding pictures, resizing, tokenising and reading the answers are in the time, loading the model is not.
Float32, as many threads. The two take turns; printed are medians.

Two models: the shipped one, on documents of the embedded benchmark, whose answers must be the same (where the peer's
completion keeps the form; `extract` cannot break it); and one of 8 million random parameters in the proportions of
Qwen2.5-VL-7B, with prompts and completions as long as MORE's (benchmarks/grpo_sides.py), where all tokens must be the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from grpo_sides import Case, questions, write_model
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.utils import logging

from more_r1 import extract, load_backbone, load_documents
from more_r1.document import Document
from more_r1.models.families.qwen import MIN_PIXELS, ImageTextProcessor
from more_r1.models.generate import generate
from more_r1.models.load import Backbone
from more_r1.reasoning.prompt import Picture, Prompt, build_prompt
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

PAIRS = 5
MAX_NEW_TOKENS = 512
# Prompt and completion of the large case in tokens, see grpo_sides.py.
LONG = Case(900, 300, 1, PAIRS)

Seconds = tuple[float, float]
"""CPU and wall."""


class Peer:
    """Stock transformers: model and processor of a folder, `generate` on batches."""

    def __init__(self, folder: str) -> None:
        self.processor = ImageTextProcessor.from_pretrained(folder)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self.model.eval()
        config = self.model.config
        self.never = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]

    @torch.no_grad()
    def texts(self, prompts: Sequence[Prompt], batch: int, most: int) -> list[str]:
        """The greedy completion of each prompt."""
        found: list[str] = []
        for start in range(0, len(prompts), batch):
            messages = [_message(prompt) for prompt in prompts[start : start + batch]]
            inputs = self.processor.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs={"return_tensors": "pt", "padding": True},
            )
            out = self.model.generate(**inputs, do_sample=False, max_new_tokens=most, suppress_tokens=self.never)
            found += self.processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found


def _message(prompt: Prompt) -> list[dict[str, Any]]:
    """With pictures of the size at which the model is to see them."""
    content = [
        {"type": "image", "image": _resized(part)} if isinstance(part, Picture) else {"type": "text", "text": part}
        for segment in prompt.segments
        for part in segment
    ]
    return [{"role": "user", "content": content}]


def _resized(picture: Picture) -> Image.Image:
    image = picture.load()
    height, width = smart_resize(image.height, image.width, 28, MIN_PIXELS, picture.pixels)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def timed(work: Callable[[], list[str]]) -> tuple[list[str], Seconds]:
    """What it gives, and what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    done = work()
    return done, (time.process_time() - cpu, time.perf_counter() - wall)


def compare(
    name: str,
    batches: Sequence[int],
    repeats: int,
    ours: Callable[[], Callable[[], list[str]]],
    theirs: Callable[[int], list[str]],
    check: Callable[[list[str], list[str]], str],
) -> None:
    """Take turns and print; `ours` gives a fresh start each time, with nothing kept of the last."""
    mine: list[Seconds] = []
    peers: dict[int, list[Seconds]] = {batch: [] for batch in batches}
    note = ""
    for _ in range(repeats):
        answers, spent = timed(ours())
        mine.append(spent)
        for batch in batches:
            told, spent = timed(lambda batch=batch: theirs(batch))  # type: ignore[misc]
            peers[batch].append(spent)
            note = check(answers, told)
    cpu = statistics.median(seconds for seconds, _ in mine)
    print(f"{name}: {note}; ours {cpu:.2f} s of CPU time, {statistics.median(wall for _, wall in mine):.2f} s of wall time")
    for batch, spent in peers.items():
        ratios = [[peer[kind] / own[kind] for peer, own in zip(spent, mine, strict=True)] for kind in (0, 1)]
        print(
            f"  generate, {batch:>3} pairs a call: {statistics.median(seconds for seconds, _ in spent):.2f} s of CPU time, "
            f"ratio {statistics.median(ratios[0]):.2f} ({min(ratios[0]):.2f} to {max(ratios[0]):.2f}); of wall time "
            f"{statistics.median(ratios[1]):.2f}",
            flush=True,
        )


def embedded(model: str, documents: Sequence[Document], batches: Sequence[int], repeats: int) -> None:
    """The shipped model, from documents to labels."""
    schema = Schema.more()
    backbone = load_backbone(model, device="cpu")
    peer = Peer(str(backbone.model.name_or_path))
    form = backbone.form

    def ours() -> Callable[[], list[str]]:
        fresh = load_backbone(model, device="cpu")
        return lambda: [str(prediction.predicted) for prediction in extract(fresh, documents, schema)]

    def theirs(batch: int) -> list[str]:
        asked = [build_prompt(document, pair, schema, form) for document in documents for pair in document.pairs]
        return [str(read_answer(text, schema, form.reasoning)) for text in peer.texts(asked, batch, MAX_NEW_TOKENS)]

    def check(answers: list[str], told: list[str]) -> str:
        kept = [(mine, theirs) for mine, theirs in zip(answers, told, strict=True) if theirs != "None"]
        if any(mine != theirs for mine, theirs in kept) or len(kept) < 0.9 * len(told):
            raise SystemExit(
                f"the answers differ: {[pair for pair in kept if pair[0] != pair[1]]}, {len(kept)} of {len(told)} kept"
            )
        return f"{len(kept)} of {len(answers)} answers the same, {len(answers) - len(kept)} where the peer's broke the form"

    compare(f"{model}, {len(documents)} documents of {PAIRS} pairs", batches, repeats, ours, theirs, check)


def long(case: Case, documents: int, batches: Sequence[int], repeats: int) -> None:
    """The model of random weights, from prompts to texts."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(f"{folder}/model")
        peer = Peer(f"{folder}/model")
        encoder = load_backbone(f"{folder}/model", device="cpu").encoder
        asked = [question.asked for seed in range(documents) for question in questions(case, encoder, seed)]

        def ours() -> Callable[[], list[str]]:
            fresh: Backbone = load_backbone(f"{folder}/model", device="cpu")
            return lambda: generate(fresh, asked, case.completion)

        def check(answers: list[str], told: list[str]) -> str:
            differing = sum(mine.split() != theirs.split() for mine, theirs in zip(answers, told, strict=True))
            if differing:
                raise SystemExit(f"{differing} of {len(asked)} texts differ")
            return f"{len(asked)} texts the same"

        name = f"prompts of {case.prompt}, completions of {case.completion} tokens, {documents} documents of {case.pairs} pairs"
        compare(name, batches, repeats, ours, lambda batch: peer.texts(asked, batch, case.completion), check)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/embedded"))
    parser.add_argument("--documents", type=int, default=12, help="of the test split, those of 5 pairs")
    parser.add_argument("--long-documents", type=int, default=4, help="of the case of random weights; 0 leaves it out")
    parser.add_argument("--long", type=Case.read, default=LONG, help="prompt/completion/1/pairs of that case, in tokens")
    parser.add_argument("--batches", type=int, nargs="+", default=[5, 20], help="pairs in a call of generate")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    documents = [document for document in load_documents(options.data, "test") if len(document.pairs) == PAIRS]
    embedded("tiny", documents[: options.documents], options.batches, options.repeats)
    if options.long_documents:
        long(options.long, options.long_documents, options.batches, options.repeats)


if __name__ == "__main__":
    main()
