from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from more_r1.models.tiny import SPECIAL, build_tiny, build_tokenizer
from more_r1.reasoning.prompt import plain

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
WORDS = [*TAGS, "Step", "1", ":", "/per", "/member_of", "Norvan", "Green-White", "O'Neil"]
TOKENIZER = build_tokenizer(WORDS)


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("word", WORDS)
def test_each_word_is_one_token_with_and_without_its_space(word: str) -> None:
    (bare,), (spaced,) = ids(word), ids(f" {word}")
    assert bare != spaced and TOKENIZER.decode([bare, spaced]) == f"{word} {word}"


def test_words_stand_side_by_side() -> None:
    text = "<think> Step 1: Norvan O'Neil</think><answer>/per/member_of</answer>"
    pieces = ["<think>", " Step", " 1", ":", " Norvan", " O'Neil", "</think>", "<answer>", "/per", "/member_of", "</answer>"]
    assert [TOKENIZER.decode([id]) for id in ids(text)] == pieces


surrogates_are_no_text = st.characters(exclude_categories=["Cs"])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(surrogates_are_no_text), st.lists(st.sampled_from([*WORDS, " ", "\n", "é", *SPECIAL])).map("".join)))
def test_decode_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(ids(text), clean_up_tokenization_spaces=False) == text


markup = st.lists(st.sampled_from([*SPECIAL, "<", "|", "<|", "|>", "image_pad", " ", "\ue000", "<think>", "w"])).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(surrogates_are_no_text), markup))
def test_no_headline_yields_a_special_token(headline: str) -> None:
    assert not set(ids(plain(headline))) & set(TOKENIZER.convert_tokens_to_ids(list(SPECIAL)))


def test_tokenizer_loads_as_any_other(tmp_path: object) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Norvan é  Green-White\n<|im_end|>"
    assert loaded(text)["input_ids"] == ids(text)
    assert loaded.eos_token == "<|im_end|>" and loaded.decode(ids(text)) == text


def test_size_and_class() -> None:
    backbone = build_tiny([f"word{number}" for number in range(1000)], seed=0)
    assert isinstance(backbone.model, Qwen2_5_VLForConditionalGeneration)
    assert 2e6 < sum(p.numel() for p in backbone.model.parameters()) < 3e6


def test_seed_decides_the_weights_and_leaves_the_world_alone() -> None:
    state = torch.random.get_rng_state()
    one, same, other = build_tiny(["a1", "b1"], 3), build_tiny(["b1", "a1", "a1"], 3), build_tiny(["a1", "b1"], 4)
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in each.model.parameters()]) for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_prompt_has_no_system_turn() -> None:
    tiny = build_tiny(["hello"], 0)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hello"}]}]
    text = tiny.encoder.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert re.sub(r"<\|vision_start\|><\|image_pad\|><\|vision_end\|>", "[]", text) == (
        "<|im_start|>user\n[]hello<|im_end|>\n<|im_start|>assistant\n"
    )
