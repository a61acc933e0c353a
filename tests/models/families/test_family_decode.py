"""Of every family: greedy texts are those of stock generate, forced texts keep the form, labels have their scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from tiny_families import Both, followed, some_prompts, stock_inputs

from more_r1.models.decode import vision_ids
from more_r1.models.forest import Forest, logprobs
from more_r1.models.generate import generate
from more_r1.models.labels import label_scores
from more_r1.models.load import Backbone
from more_r1.models.lora import Lora, add_lora
from more_r1.models.sampling import Sampling, sample
from more_r1.reasoning.prompt import Prompt, PromptForm
from more_r1.reasoning.trace import read_answer
from more_r1.schema import Schema

LIMIT = 20
STOP_EVERY = 16


@pytest.fixture
def eager(both: Both) -> Iterator[Both]:
    """One token in STOP_EVERY ends a completion, so that rows finish early and at different steps."""
    config = both.ours.model.generation_config
    before = config.eos_token_id
    config.eos_token_id = list(range(0, 300, STOP_EVERY))
    yield both
    config.eos_token_id = before


def stock_text(both: Both, inputs: dict[str, torch.Tensor], limit: int = LIMIT) -> str:
    stops = {both.ours.encoder.eos_id, *both.ours.model.generation_config.eos_token_id}
    out = both.stock.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=sorted(stops),
        suppress_tokens=vision_ids(both.ours),
        pad_token_id=0,
    )[0, inputs["input_ids"].shape[1] :].tolist()
    return both.ours.encoder.decode(out[: next((place for place, id in enumerate(out) if id in stops), len(out))])


def test_greedy_texts_are_those_of_stock_generate(eager: Both) -> None:
    prompts = some_prompts(3)
    texts = generate(eager.ours, prompts, LIMIT)
    assert texts == [stock_text(eager, stock_inputs(eager.ours, prompt)) for prompt in prompts]
    assert len({len(text) for text in texts}) > 3, "the rows must finish at different steps for this to show anything"


def test_no_completion_holds_marks_of_pictures(both: Both) -> None:
    marks = vision_ids(both.ours)
    assert both.ours.encoder.image_id in marks
    model = copy.deepcopy(both.ours.model)
    # A head that wants nothing so much as to write them.
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor(marks), 50.0))
    drawn = sample(Backbone(model, both.ours.encoder, both.ours.form), some_prompts(3)[:2], [[1], [2]], Sampling(), 5)
    assert not any(id in marks for group in drawn for rollout in group for id in rollout.ids)


@pytest.mark.parametrize("adapters", [False, True])
def test_the_log_probabilities_of_what_is_drawn_are_those_of_the_forest(both: Both, adapters: bool) -> None:
    model, encoder = copy.deepcopy(both.ours.model), both.ours.encoder
    if adapters:
        add_lora(model, Lora(rank=2))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)
    prompts = some_prompts(4)
    drawn = sample(
        Backbone(model, encoder, both.ours.form), prompts, [[2 * i, 2 * i + 1] for i in range(len(prompts))], Sampling(), 9
    )
    flat = [(encoder.prompt(prompt), rollout) for prompt, group in zip(prompts, drawn, strict=True) for rollout in group]
    with torch.no_grad():
        wanted = logprobs(model, Forest.build([(segments, rollout.ids) for segments, rollout in flat], encoder))
    for (_, rollout), tokens in zip(flat, wanted, strict=True):
        assert list(rollout.logprobs) == pytest.approx(tokens.tolist(), abs=2e-5)


@pytest.mark.parametrize("reasoning", ["none", "steps"])
def test_a_forced_completion_ends_in_a_label_which_is_scored(both: Both, reasoning: str) -> None:
    schema = Schema.more()
    backbone = Backbone(both.ours.model, both.ours.encoder, PromptForm.model_validate({"reasoning": reasoning}))
    prompts = some_prompts(5)[:2]
    texts = generate(backbone, prompts, 100, keep_form=schema)
    assert all(read_answer(text, schema, backbone.form.reasoning) for text in texts)
    scores = label_scores(backbone, prompts, texts, schema)
    before = texts[1][: texts[1].index("<answer>")]
    stock = torch.tensor([alone(both, prompts[1], f"{before}<answer>{label}</answer>") for label in schema.labels])
    # Labels differ by as much as the texts that end in them.
    torch.testing.assert_close(torch.tensor(scores[1]), stock.log_softmax(-1), atol=1e-3, rtol=0)


def alone(both: Both, prompt: Prompt, text: str) -> float:
    """The log-probability of a text after a prompt by the stock model."""
    ids = torch.tensor([both.ours.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = both.stock(**followed(stock_inputs(both.ours, prompt), ids)).logits[0, -ids.shape[1] - 1 : -1]
    return float(logits.log_softmax(-1).gather(1, ids[0][:, None]).sum())
