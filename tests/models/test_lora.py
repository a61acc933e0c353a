"""Adapters beside the merged weights: what others load computes the same."""

from __future__ import annotations

import copy
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2_5_VLForConditionalGeneration

from more_r1.document import Document
from more_r1.models.load import Backbone, load_backbone, save_backbone
from more_r1.models.lora import Lora, add_lora, merged, save_adapter
from more_r1.reasoning.prompt import build_prompt
from more_r1.schema import Schema


@pytest.fixture(scope="module")
def folders(random_tiny: Backbone, random_tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same adapters merged, as a model folder, and by themselves."""
    backbone = copy.copy(load_backbone(random_tiny_dir))
    add_lora(backbone.model, Lora(rank=4, alpha=12))
    draw = torch.Generator().manual_seed(1)
    for name, weights in backbone.model.named_parameters():
        if ".lora_" in name:
            weights.data = torch.randn(weights.shape, generator=draw) * 0.1
    folder = tmp_path_factory.mktemp("lora")
    save_backbone(backbone, folder / "merged")
    save_adapter(backbone.model, folder / "adapter", str(random_tiny_dir))
    return folder / "merged", folder / "adapter"


def test_stock_peft_loads_what_the_merged_weights_compute(
    folders: tuple[Path, Path], random_tiny_dir: Path, document: Document, tmp_path: Path
) -> None:
    merged, adapter = folders
    stock = Qwen2_5_VLForConditionalGeneration
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(random_tiny_dir)
    with torch.no_grad():
        before = logits(stock.from_pretrained(random_tiny_dir), random_tiny_dir, document)
        expected = logits(stock.from_pretrained(merged), random_tiny_dir, document)
        loaded = PeftModel.from_pretrained(stock.from_pretrained(base), adapter)
        found = logits(loaded, random_tiny_dir, document)
        loaded.save_pretrained(tmp_path)
        joined = loaded.merge_and_unload()
    assert float((expected - before).abs().max()) > 0.1
    assert float((expected - found).abs().max()) < 1e-4
    # As peft writes it itself: vLLM takes the weights by these names.
    assert (adapter / "adapter_model.safetensors").read_bytes() == (tmp_path / "adapter_model.safetensors").read_bytes()
    theirs, ours = joined.state_dict(), stock.from_pretrained(merged).state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert torch.allclose(theirs[name], tensor, atol=1e-6), name


def logits(model: torch.nn.Module, folder: Path, document: Document) -> torch.Tensor:
    """By stock code: the processor's tensors into the model."""
    backbone = load_backbone(folder)
    prompt = build_prompt(document, document.pairs[0], Schema.more(), backbone.form)
    messages = prompt.messages()
    inputs = backbone.encoder.processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    found: torch.Tensor = model.eval()(**inputs).logits
    return found


@pytest.fixture(scope="module")
def document(benchmark_dir: Path) -> Document:
    from more_r1.formats import load_documents

    return load_documents(benchmark_dir, "train")[0]


def test_a_model_without_adapters_has_none_to_write(random_tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no adapters"):
        save_adapter(random_tiny.model, tmp_path / "adapter", "base")
    assert not (tmp_path / "adapter").exists()


class _Device(TorchDispatchMode):
    """What is made on a GPU, and the most bytes of it that are there at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.there: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        # A view takes no room.
        if isinstance(made, Tensor) and made.device.type == "cuda" and not call.is_view:
            self.there.append(weakref.ref(made))
            self.most = max(self.most, sum(tensor.nbytes for ref in self.there if (tensor := ref()) is not None))
        return made


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_merging_takes_the_room_of_a_few_matrices_on_a_gpu_that_is_full() -> None:
    layers, width = 12, 64
    model = nn.Module()
    model.language_model = nn.ModuleList(nn.ModuleDict({"q_proj": nn.Linear(width, width, bias=False)}) for _ in range(layers))
    model.lm_head = nn.Linear(width, width, bias=False)
    add_lora(model, Lora(rank=4))
    with FakeTensorMode():
        for name, parameter in list(model.named_parameters()):
            owner, _, last = name.rpartition(".")
            # As in training: what is frozen is in half precision, what learns is not.
            dtype = torch.float32 if ".lora_" in name else torch.bfloat16
            there = torch.empty(parameter.shape, dtype=dtype, device="cuda")
            setattr(model.get_submodule(owner), last, nn.Parameter(there, requires_grad=False))
        with _Device() as device:
            weights = merged(model, torch.bfloat16)
    assert len(weights) == layers + 1
    assert {(tensor.device.type, tensor.dtype) for tensor in weights.values()} == {("cpu", torch.bfloat16)}
    assert 0 < device.most <= 4 * 4 * width**2
