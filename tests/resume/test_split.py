"""A model split over two processes learns what it learns whole, goes on after a kill, and is saved whole.

The environment is what `accelerate launch` makes of the files in recipes/accelerate. DeepSpeed is in `make test-deepspeed`.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import stage2
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from colours import ColourRecipe, train
from halves import Halfway
from processes import assert_learned_the_same, finish, joined, kill, launch, log

from more_r1.training.recipe import RecipeError

FILES = Path(__file__).parents[2] / "recipes" / "accelerate"
DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="make test-deepspeed")
KINDS = ["fsdp2", pytest.param("zero2", marks=DEEPSPEED), pytest.param("zero3", marks=DEEPSPEED)]


def environment(kind: str, precision: str = "no") -> dict[str, str]:
    """What the file says, in float32 by default, and on CPUs."""
    file = str(FILES / f"{kind}.yaml")
    arguments = launch_command_parser().parse_args(["--config_file", file, "--mixed_precision", precision, "more_r1"])
    arguments, _, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ""
        found = prepare_deepspeed_cmd_env(arguments)[1] | {"DS_ACCELERATOR": "cpu"}
    else:
        found = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_", "DS_"))}


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_learn_what_one_learns(tmp_path: Path, kind: str) -> None:
    alone, together, split = tmp_path / "alone", tmp_path / "together", environment(kind)
    finish(alone, 1)
    kill(together, 2, split)
    # What it saved is split, too.
    with pytest.raises(RecipeError, match=f"its checkpoint was written by 2 processes, {kind}, this is 1 process; go on with"):
        train(ColourRecipe(out=together, draws=False))
    finish(together, 2, split)
    assert_learned_the_same(alone, together)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [{}, {"lora": {"rank": 4}}, {"rollout": "vllm"}], ids=["full", "lora", "elsewhere"])
def test_two_halves_draw_and_learn_what_one_does(halfway: Halfway, tmp_path: Path, own: dict[str, Any], kind: str) -> None:
    """Of five pairs a step the processes have unequal parts, in unequal numbers of chunks."""
    alone, together = tmp_path / "alone", tmp_path / "together"
    for out, processes in ((alone, 1), (together, 2)):
        given: dict[str, Any] = {"batch_pairs": 5, "group": 4, "passes": 2, "sampling": {}, "epochs": 1, "most_steps": 3}
        given |= {"chunk_tokens": 200, "checkpointing": True, "beta": 0.02, "valid_pairs": 4}
        recipe = halfway.grpo(out, **given, **own)
        joined(launch(stage2.child, processes, recipe.model_dump(mode="json"), split=environment(kind)))
    assert any(abs(event["loss"]) > 1e-4 for event in log(alone) if "loss" in event)
    assert_learned_the_same(alone, together, but=("seconds", "tokens", "passed", "sample"))


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("own", [{}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_a_layer_is_gathered_at_a_time_and_log_probabilities_are_not_rounded(
    halfway: Halfway, tmp_path: Path, own: dict[str, Any], precision: str
) -> None:
    recipe = halfway.grpo(tmp_path / "run", batch_pairs=2, group=2, epochs=1, most_steps=1, valid_pairs=2, sampling={}, **own)
    joined(launch(stage2.counted, 2, recipe.model_dump(mode="json"), split=environment("fsdp2", precision)))
    units = (tmp_path / "run.units").read_text().splitlines()
    assert units.count("FSDPPolicy") == 1
    assert units.count("FSDPQwen2_5_VLDecoderLayer") == len(units) - 1 > 1
    assert (tmp_path / "run.type").read_text() == "torch.float32"


def test_weights_in_half_precision_are_split_as_they_are_and_learnt_in_single_precision(
    halfway: Halfway, tmp_path: Path
) -> None:
    """Else each process would have all of them in single precision for a moment."""
    given = {"batch_pairs": 6, "group": 4, "epochs": 1, "most_steps": 2, "valid_pairs": 2, "sampling": {}, "lr": 1e-6}
    recipe = halfway.grpo(tmp_path / "run", **given, beta=0.02, freeze_vision=False)
    joined(launch(stage2.halved, 2, recipe.model_dump(mode="json"), split=environment("fsdp2", "bf16")))
    for rank in range(2):
        told = json.loads((tmp_path / f"run.{rank}").read_text())
        assert (told["split"], told["learn"]) == (["torch.bfloat16"], ["torch.float32"])
        least, most = told["moved"]
        assert 1e-6 < least <= most < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [{"forest": "recursive"}, {"mixing": {"remeasure": True}}], ids=["recursive", "remeasure"])
def test_what_stage_2_cannot_do_split_is_refused_before_stage_1(
    halfway: Halfway, tmp_path: Path, own: dict[str, Any], kind: str
) -> None:
    given = {"out": str(tmp_path / "run"), "data": str(halfway.data), "model": str(halfway.model)}
    joined(launch(stage2.piped, 2, {**given, "sft": {}, "difficulty": {}, "grpo": own}, split=environment(kind)))
    told = (tmp_path / "run.refused").read_text()
    assert told.startswith("grpo.") and f"needs model and gradients whole in each process, and {kind} splits them" in told
    assert not (tmp_path / "run").exists()
