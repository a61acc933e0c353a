"""The sizes of a Qwen2.5-VL, and by arithmetic what follows: parameters, operations of its vision tower, bytes. No torch."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from more_r1.training.recipe import Recipe, RecipeError


class OtherFamilyError(RecipeError):
    """A model whose sizes are not a Qwen2.5-VL's."""


class VisionShape(Recipe):
    """The sizes of the vision tower and of the merger behind it."""

    depth: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    full_blocks: int = Field(ge=0)
    """Blocks that attend to the whole picture; the others attend within windows."""
    window: int = Field(default=112, ge=1)
    """Pixels along the side of a window."""
    patch: int = Field(default=14, ge=1)
    """Pixels along the side of a patch."""
    merge: int = Field(default=2, ge=1)
    """Patches along the side of what becomes one token."""
    frames: int = Field(default=2, ge=1)
    """Frames of a patch; a picture is shown twice."""
    channels: int = Field(default=3, ge=1)


class Shape(Recipe):
    """The sizes of a Qwen2.5-VL, as its config.json has them."""

    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    vocab: int = Field(ge=1)
    tied: bool
    """Whether the embedding is the head, too."""
    vision: VisionShape

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} must be a multiple of heads {self.heads}")
        return self

    @property
    def kv(self) -> int:
        """Width of the keys of a layer, and of its values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def matrices(self) -> int:
        """Weights of the language layers that multiply every token."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the language model's head."""
        return self.vocab * self.hidden

    @property
    def vision_parameters(self) -> int:
        """All parameters of the vision tower, the merger among them."""
        v, wide = self.vision, self.vision.merge**2 * self.vision.hidden
        block = self._vision_block + 6 * v.hidden + 2 * v.intermediate + v.hidden  # biases of six matrices, two norms
        merger = v.hidden + wide * wide + wide + wide * self.hidden + self.hidden
        return self._patch_embedding + v.depth * block + merger

    @property
    def parameters(self) -> int:
        """All parameters of the model; tied weights count once."""
        biases_and_norms = self.layers * (self.hidden + 2 * self.kv + 2 * self.hidden) + self.hidden
        embeddings = self.head * (1 if self.tied else 2)
        return embeddings + self.matrices + biases_and_norms + self.vision_parameters

    @property
    def _patch_embedding(self) -> int:
        v = self.vision
        return v.channels * v.frames * v.patch**2 * v.hidden

    @property
    def _vision_block(self) -> int:
        v = self.vision
        return 4 * v.hidden**2 + 3 * v.hidden * v.intermediate

    def lora_parameters(self, rank: int) -> int:
        """Of adapters on the seven matrices of each language layer."""
        attention = 2 * 2 * self.hidden + 2 * (self.hidden + self.kv)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def picture_flops(self, tokens: float) -> float:
        """Operations of the vision tower, forward, for a picture that becomes so many tokens.

        Windows are taken as full, which those at the edge of a picture may not be.
        """
        v = self.vision
        patches, wide = tokens * v.merge**2, v.merge**2 * v.hidden
        matrices = 2 * patches * (self._patch_embedding + v.depth * self._vision_block)
        merger = 2 * tokens * (wide * wide + wide * self.hidden)
        seen = v.full_blocks * patches + (v.depth - v.full_blocks) * min((v.window // v.patch) ** 2, patches)
        return matrices + merger + 4 * v.hidden * patches * seen

    def layer_bytes(self, width: int) -> int:
        """What autograd keeps of one language layer for each token, in numbers of `width` bytes.

        Counted as Korthikanti et al. 2022 (arXiv 2205.05198) do, for what transformers runs with SDPA: the inputs of the
        matrices, the factors of products, and both norms' inputs in float32.
        """
        return width * (6 * self.hidden + 2 * self.kv + 4 * self.intermediate) + 8 * self.hidden + 4 * self.heads + 8

    def block_bytes(self, width: int) -> int:
        """As `layer_bytes`, of one vision block for each patch."""
        v = self.vision
        return width * (11 * v.hidden + 4 * v.intermediate) + 8 * v.hidden + 4 * v.heads + 8


def read_shape(name: str) -> Shape:
    """The sizes of a model folder or hub name, from its config.json. Raises OtherFamilyError for what is no Qwen2.5-VL,
    RecipeError for what cannot be read."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from transformers import AutoConfig

    from more_r1.models.manner import folder_of

    try:
        config = AutoConfig.from_pretrained(folder_of(name), trust_remote_code=False)
        if config.model_type != "qwen2_5_vl":
            raise OtherFamilyError(f"model={name}: a {config.model_type} model; give a Qwen2.5-VL (model_type qwen2_5_vl)")
        return _shape(config)
    except RecipeError:
        raise
    except Exception as error:  # a stranger's folder fails in many ways, each must cost one clear line
        if isinstance(error.__cause__, LocalEntryNotFoundError):
            raise RecipeError(f"model={name}: the hub cannot be reached, and it is not kept here; give model=FOLDER") from error
        why = " ".join(str(error).split())[:300]
        raise RecipeError(f"model={name}: its config.json cannot be read as a Qwen2.5-VL's ({why})") from error


def _shape(config: Any) -> Shape:
    text, vision = config.text_config, config.vision_config
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        vocab=text.vocab_size,
        tied=config.tie_word_embeddings,
        vision=VisionShape(
            depth=vision.depth,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            heads=vision.num_heads,
            full_blocks=len(set(vision.fullatt_block_indexes) & set(range(vision.depth))),
            window=vision.window_size,
            patch=vision.patch_size,
            merge=vision.spatial_merge_size,
            frames=vision.temporal_patch_size,
            channels=vision.in_channels,
        ),
    )
