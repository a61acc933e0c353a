"""Lets torchvision be imported beside a torch for CPUs: `make test-vllm` puts this into its venv, to be run at every start.

vLLM reads model folders by transformers' stock processor, which wants torchvision. Registries that have torchvision for CUDA
alone give one whose compiled operators do not load beside `torch+cpu`; its import then fails at `nms` and `qnms`, of which it
wants to know the signatures. Nobody calls them here. They are declared when torchvision is first looked for, not before, for
that would import torch into every Python of the venv. It must be in place in vLLM's own processes, too: hence a .pth file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any


class _Declare(MetaPathFinder):
    library: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        type(self).library = torch.library.Library("torchvision", "DEF")  # what it declares goes with it
        for operator in ("nms", "qnms"):
            self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Declare())
