"""Confidence: what labels score after a trace, by an independent computation, and what is made of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from more_r1.document import Document
from more_r1.extraction.extract import extract
from more_r1.formats import load_documents
from more_r1.models import labels as labels_module
from more_r1.models import predict as predict_module
from more_r1.models.generate import generate
from more_r1.models.labels import label_scores
from more_r1.models.load import Backbone, load_backbone
from more_r1.models.sampling import Sampling, rollout_seed
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt, PromptForm, build_prompt
from more_r1.reasoning.trace import Trace, parse_trace
from more_r1.schema import Relation, Schema

MORE = Schema.more()
# One label begins another: what ends a label counts.
OWN = Schema(
    relations=(Relation(label="/per/org/member", meaning="-"), Relation(label="/per/org/member_of_board", meaning="-"))
)
TRACE = Trace(("seen", "said", "who", "a (per) and an (org)", "left", "so"), "none").render()


@pytest.fixture(scope="module")
def shipped() -> Backbone:
    return load_backbone("tiny")


@pytest.fixture(scope="module")
def documents(benchmark_dir: Path) -> list[Document]:
    return load_documents(benchmark_dir, "test")


def stock(backbone: Backbone, prompt: Prompt, completion: str, schema: Schema) -> list[float]:
    """As `label_scores`, by stock attention: each label's whole text alone behind the whole prompt."""
    encoder = backbone.encoder
    model = copy.deepcopy(backbone.model)
    model.set_attn_implementation("sdpa")
    before = [id for segment in encoder.prompt(prompt) for id in segment.ids]
    pixels = [encoder.pixels(shown) for shown in prompt.pictures]
    head = completion[: completion.index("<answer>") + len("<answer>")]
    # What no two texts share is theirs, up to the token that begins the closing tag.
    texts = [encoder.tokenizer(head + label + "</answer>", add_special_tokens=False)["input_ids"] for label in schema.labels]
    closing = len(encoder.tokenizer("</answer>", add_special_tokens=False)["input_ids"])
    totals = []
    for ids in texts:
        whole = torch.tensor([before + ids])
        with torch.no_grad():
            logits = model(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
                mm_token_type_ids=(whole == encoder.image_id).int(),
                pixel_values=torch.cat([values for values, _ in pixels]),
                image_grid_thw=torch.stack([grid for _, grid in pixels]),
            ).logits[0]
        logprobs = logits.log_softmax(-1)[:-1].gather(1, whole[0, 1:, None])[:, 0]
        last = len(ids) - closing + 1
        totals.append(float(logprobs[len(before) - 1 : len(before) - 1 + last].sum()))
    return torch.tensor(totals).double().log_softmax(0).tolist()


def asked(backbone: Backbone, documents: list[Document], schema: Schema, count: int) -> list[Prompt]:
    return [build_prompt(d, p, schema, backbone.form) for d in documents for p in d.pairs][:count]


def test_scores_are_those_of_stock_transformers(shipped: Backbone, documents: list[Document]) -> None:
    prompts = asked(shipped, documents, MORE, 3)
    completions = generate(shipped, prompts, 512, keep_form=MORE)
    for prompt, completion, row in zip(prompts, completions, label_scores(shipped, prompts, completions, MORE), strict=True):
        assert row == pytest.approx(stock(shipped, prompt, completion, MORE), abs=2e-4)
        assert math.fsum(map(math.exp, row or ())) == pytest.approx(1)
        assert MORE.labels[max(range(21), key=(row or ()).__getitem__)] == parse_trace(completion, MORE).answer


@pytest.mark.parametrize("words", [["<answer>/per", "/member"], ["<answer>", "</answer>", "/per", "/org", *OWN.labels], ["a"]])
def test_labels_are_spelled_as_the_tokenizer_has_the_whole(words: list[str], documents: list[Document]) -> None:
    """Some tokenizers join the bracket of the tag with the label, others spell all of it letter by letter."""
    backbone = build_tiny(words, 0, PromptForm(wording="short", whole_pixels=3136, crop_pixels=3136))
    prompts = asked(backbone, documents, OWN, 1)
    spells = "</answer>" in words
    found = label_scores(backbone, prompts, [TRACE], OWN)[0]
    wanted = stock(backbone, prompts[0], TRACE, OWN)
    assert found == pytest.approx(wanted, abs=1e-4, rel=1e-5)
    assert spells == (len(backbone.encoder.tokenizer("</answer>")["input_ids"]) == 1)


def test_what_is_scored_together_changes_nothing(
    shipped: Backbone, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = asked(shipped, documents, MORE, 6)
    broken = "<think> Step 1: I stop here"
    completions = [TRACE, broken, TRACE.replace("who", "nobody"), TRACE, broken, TRACE]
    together = label_scores(shipped, prompts, completions, MORE)
    assert [row is None for row in together] == [text == broken for text in completions]
    monkeypatch.setattr(labels_module, "SCORED_TOKENS", 1)
    for other in (
        label_scores(shipped, prompts, completions, MORE),
        label_scores(shipped, prompts[::-1], completions[::-1], MORE)[::-1],
    ):
        for one, two in zip(together, other, strict=True):
            assert one is two is None or one == pytest.approx(two, abs=1e-4)
    assert label_scores(shipped, [], [], MORE) == []


def test_confidence_is_that_of_the_label_at_the_temperature(shipped: Backbone, documents: list[Document]) -> None:
    plain = list(extract(shipped, documents[:1]))
    assert all(one.confidence is one.agreement is one.scores is None for one in plain)
    cold, hot = (list(extract(replace(shipped, temperature=value), documents[:1], confidence=True)) for value in (1.0, 3.0))
    for one, other, before in zip(cold, hot, plain, strict=True):
        assert (one.predicted, one.completion) == (before.predicted, before.completion)
        assert one.scores is not None and one.confidence is not None and other.confidence is not None
        place = MORE.labels.index(one.predicted or "")
        assert one.confidence == pytest.approx(math.exp(one.scores[place]))
        softened = torch.tensor(one.scores).double().div(3).softmax(0)
        assert other.confidence == pytest.approx(float(softened[place]), abs=1e-6)
        assert other.scores == one.scores


def test_doubtful_labels_are_withheld(shipped: Backbone, documents: list[Document]) -> None:
    sure = [one.confidence or 0 for one in extract(shipped, documents[:3], confidence=True)]
    border = sorted(sure)[len(sure) // 2]
    found = list(extract(shipped, documents[:3], min_confidence=border))
    assert [one.abstained for one in found] == [value < border for value in sure]
    assert all((one.predicted is None) == one.abstained and one.confidence is not None for one in found)
    assert 0 < sum(one.abstained for one in found) < len(found)


def test_agreement_is_the_share_of_drawn_traces(random_tiny: Backbone, documents: list[Document]) -> None:
    """Of random weights, which agree with themselves by chance alone."""
    found = list(extract(random_tiny, documents[:1], OWN, samples=5, max_new_tokens=96))
    agreed = []
    for one, prompt in zip(found, asked(random_tiny, documents, OWN, len(found)), strict=True):
        seeds = [rollout_seed(0, 0, (one.document, one.object, one.span), number) for number in range(5)]
        drawn = generate(random_tiny, [prompt] * 5, 96, keep_form=OWN, sampling=Sampling(), seeds=seeds)
        agreed.append([parse_trace(text, OWN).answer for text in drawn].count(one.predicted or "") / 5)
    assert [one.agreement for one in found] == agreed
    assert len(set(agreed) - {0.0, 1.0}) > 0


def test_documents_are_read_together_if_asked(
    random_tiny: Backbone, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is seen seems to be whatever is named: of each document as many remain as can be one to one."""
    same = MORE.labels.index("/per/per/alternate_names")
    scores = tuple(-0.1 if place == same else -3.0 for place in range(len(MORE.labels)))
    monkeypatch.setattr(predict_module, "generate", lambda backbone, prompts, *_, **__: [TRACE] * len(prompts))
    monkeypatch.setattr(predict_module, "label_scores", lambda backbone, prompts, *_: [scores] * len(prompts))
    raw = [document.model_copy(update={"pairs": ()}) for document in documents]
    alone, together = (list(extract(random_tiny, raw, joint=joint)) for joint in (False, True))
    assert {one.predicted for one in alone} == {"none"}
    found = [(one.document, one.object, one.name) for one in together if one.predicted == MORE.labels[same]]
    wanted = sum(min(len(d.objects), len({d.name(e).casefold() for e in d.entities})) for d in documents)
    assert len({(d, name) for d, _, name in found}) == len({(d, o) for d, o, _ in found}) == wanted
