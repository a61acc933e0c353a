"""Loss, learning rate and optimizer by their definitions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from more_r1.models.forest import Forest
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Prompt
from more_r1.training.examples import Batch, Example
from more_r1.training.fit import fit, token_mean
from more_r1.training.grpo import GrpoRecipe
from more_r1.training.learner import Policy, TrainingRecipe, learn
from more_r1.training.recipe import RecipeError
from more_r1.training.run import Run
from more_r1.training.schedule import rates
from more_r1.training.sft import SftRecipe

PROMPT = Prompt((("a",),))


def test_loss_is_the_mean_over_tokens_not_over_examples() -> None:
    logprobs = [torch.tensor([-1.0]), torch.tensor([-2.0, -4.0, -5.0])]
    total, count = token_mean(logprobs, [Example(PROMPT, "a"), Example(PROMPT, "b")])
    assert total / count == 3.0


def test_weights_multiply_tokens_and_divisor() -> None:
    logprobs = [torch.tensor([-1.0]), torch.tensor([-2.0, -4.0])]
    total, count = token_mean(logprobs, [Example(PROMPT, "a", weight=3.0), Example(PROMPT, "b", weight=0.5)])
    assert total / count == pytest.approx((3 * 1 + 0.5 * 6) / (3 + 2 * 0.5))
    total, count = token_mean(logprobs, [Example(PROMPT, "a", weight=0.0), Example(PROMPT, "b")])
    assert total / count == 3.0


def test_cosine_rises_then_falls_to_nothing() -> None:
    values = rates(2.0, 100, 0.1, "cosine")
    assert len(values) == 100
    assert values[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert values[10] == 2.0 and values[55] == pytest.approx(1.0)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] == pytest.approx(1 + math.cos(math.pi * 89 / 90))


def test_constant_stays_level_and_without_warmup_starts_there() -> None:
    assert rates(0.5, 4, 0.0, "constant") == [0.5] * 4
    assert rates(0.5, 4, 0.5, "constant") == [0.25, 0.5, 0.5, 0.5]
    assert rates(0.5, 1, 0.03, "cosine") == [0.5]


def learned(out: Path, steps: int, **settings: Any) -> dict[str, Tensor]:
    """The weights after some steps on one example."""
    backbone = build_tiny(["a", "b"], 0)
    recipe = TrainingRecipe.model_validate({"out": out, "threads": 1, **settings})
    learn(backbone, recipe, Run(recipe, out), [Batch((Example(PROMPT, "b a b"),), 1.0)] * steps, [1e-3] * steps, fit)
    weights: dict[str, Tensor] = backbone.model.state_dict()
    return weights


def test_weights_decay_on_matrices_only(tmp_path: Path) -> None:
    plain, decayed = learned(tmp_path / "plain", 1), learned(tmp_path / "decayed", 1, weight_decay=0.5)
    changed = {name for name, tensor in plain.items() if not torch.equal(tensor, decayed[name])}
    # The vision tower saw nothing.
    assert changed == {name for name, tensor in plain.items() if tensor.ndim >= 2 and ".visual." not in name}


def test_betas_and_clip_are_the_recipes(tmp_path: Path) -> None:
    """From the second step on: the first of Adam is the same with all of them, up to its epsilon."""
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    settings: list[dict[str, Any]] = [{}, {"betas": (0.9, 0.98)}, {"betas": (0.5, 0.999)}, {"clip": 1e-3}]
    weights = [learned(tmp_path / str(number), 3, **each)[name] for number, each in enumerate(settings)]
    for other in weights[1:]:
        assert (weights[0] - other).abs().max() > 1e-5


def test_flex_attention_has_the_same_log_probabilities(tmp_path: Path) -> None:
    """Forwards, as the reference is asked; on a CPU it has no way back, which a run says before it begins."""
    backbone = build_tiny(["a", "b"], 0)
    samples = [(backbone.encoder.prompt(PROMPT), backbone.encoder.completion(text)) for text in ("b a b", "b", "a a")]
    forest = Forest.build(samples, backbone.encoder)
    with torch.no_grad():
        found, wanted = (Policy(backbone.model, attention)(forest)[0] for attention in ("flex", "sdpa"))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    with pytest.raises(RecipeError, match="attention=flex trains on CUDA only, this is cpu; leave it out"):
        learned(tmp_path / "flex", 1, attention="flex")


def test_flex_attention_goes_with_words_in_packed_forests(tmp_path: Path) -> None:
    where = {"model": "tiny", "data": tmp_path, "out": tmp_path, "attention": "flex"}
    with pytest.raises(ValueError, match="leave it out with head=true"):
        SftRecipe.model_validate({**where, "head": True, "form": {"reasoning": "none"}})
    with pytest.raises(ValueError, match="attention=flex is for forest=packed"):
        GrpoRecipe.model_validate({**where, "difficulty": tmp_path, "forest": "recursive"})


def test_weights_in_half_precision_are_learnt_in_single_precision(tmp_path: Path) -> None:
    """A step of 1e-6 is lost on a weight in bfloat16."""
    AcceleratorState._reset_state(True)
    backbone = build_tiny(["a", "b"], 0)
    backbone.model.bfloat16()
    before = {name: weight.detach().clone() for name, weight in backbone.model.named_parameters()}
    recipe = TrainingRecipe.model_validate({"out": tmp_path / "run", "threads": 1})
    made_in_half = []

    class Batches(list[Batch]):
        """What asks the model as it is made asks it in the precision that it is trained in."""

        def __getitem__(self, index: Any) -> Any:
            made_in_half.append(torch.is_autocast_enabled("cpu"))
            return super().__getitem__(index)

    batches = Batches([Batch((Example(PROMPT, "b a b"),), 1.0)] * 2)
    try:
        learn(backbone, recipe, Run(recipe, recipe.out), batches, [1e-6] * 2, fit)
    finally:
        AcceleratorState._reset_state(True)
    moved = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in backbone.model.named_parameters()}
    assert made_in_half == [True, True]
    assert all(0 < far < 1e-5 for name, far in moved.items() if "layers" in name and "visual" not in name)
    stored = load_file(recipe.out / "final" / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
