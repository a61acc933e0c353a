"""Rollouts from a `vllm serve` that runs by itself, on other GPUs or another machine.

Tokens go in and come out (`/inference/v1/generate`), so that nothing is rendered or split anew. New weights go through a folder
that both sides see: the server is told its path.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from more_r1.models.engine import EngineError
from more_r1.models.lora import Lora
from more_r1.models.manner import Manner
from more_r1.models.vllm.prompt import VllmPrompt
from more_r1.models.vllm.rollouts import Drawn, adapter_name, drawing, refuse_tied
from more_r1.models.vllm.start import settings

# Groups that are asked for at a time, and seconds that one may take.
_AT_ONCE = 64
_PATIENCE = 1800


class Server:
    """A running server; a Machine. Of the processes of a training the `first` alone tells it of new weights."""

    def __init__(self, url: str, manner: Manner, lora: Lora | None, first: bool) -> None:
        """Raises EngineError for a server that does not answer, or was not started as it must be; says how to start it."""
        self._url, self._first = url.rstrip("/"), first
        self._launch = launch(manner, lora)
        key = os.environ.get("VLLM_API_KEY", "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EngineError("VLLM_API_KEY: has other characters than printable ASCII")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=_AT_ONCE)
        timeout = httpx2.Timeout(_PATIENCE, connect=10)
        # Not by way of a proxy of the environment: a server is near.
        self._client = httpx2.Client(base_url=self._url, headers=headers, timeout=timeout, limits=limits, trust_env=False)
        self._key = key
        self._adapter: str | None = None
        try:
            held = next(model for model in self._call("GET", "/v1/models")["data"] if model["parent"] is None)
            self._model, self.room = str(held["id"]), int(held["max_model_len"])
            config = self._call("GET", "/server_info?config_format=json")["vllm_config"]
            mode, device = config["model_config"]["logprobs_mode"], config["device_config"]["device"]
            rank = (config["lora_config"] or {}).get("max_lora_rank", 0)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise self._wrong("does not answer as vLLM 0.32 does") from error
        if mode != "processed_logprobs":
            raise self._wrong("says log-probabilities by which it does not draw")
        if lora is not None and rank < lora.rank:
            raise self._wrong(f"has no room for adapters of rank {lora.rank}")
        if lora is None and device == "cpu":
            refuse_tied(manner)
        if lora is not None:
            # An earlier run may have left weights of its own.
            self.take_weights(Path(manner.name))

    def complete(
        self, prompts: Sequence[VllmPrompt], params: Sequence[Mapping[str, Any]]
    ) -> list[tuple[list[int], list[Drawn]]]:
        """As Machine has it."""
        pictures: dict[str, str] = {}
        for prompt in prompts:
            for name, picture in zip(prompt.names, prompt.pictures, strict=True):
                if name not in pictures:
                    pictures[name] = _data_uri(picture)
        bodies = []
        for prompt, each in zip(prompts, params, strict=True):
            parts = [{"type": "image_url", "url": pictures[name], "uuid": name} for name in prompt.names]
            body = {"model": self._adapter or self._model, "token_ids": prompt.single, "content_parts": parts}
            bodies.append({**body, "sampling_params": dict(each), "return_token_ids": True})
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            replies = pool.map(lambda body: self._call("POST", "/inference/v1/generate", body), bodies)
            try:
                return [(reply["prompt_token_ids"], [_drawn(choice) for choice in reply["choices"]]) for reply in replies]
            except (KeyError, TypeError) as error:
                raise self._wrong("does not answer as vLLM 0.32 does") from error

    def take_weights(self, folder: Path) -> None:
        """As Machine has it."""
        if not self._first:
            return
        path = str(folder.resolve() if folder.is_dir() else folder)  # or a name of the hub
        told = {"method": "reload_weights", "kwargs": {"weights_path": path}}
        self._call("POST", "/collective_rpc", told, f"; it must see {path}")
        # What was computed with the old ones. The worker has dropped its pictures; the scheduler must know.
        self._call("POST", "/reset_encoder_cache")
        self._call("POST", "/reset_mm_cache")
        if not self._call("POST", "/reset_prefix_cache")["success"]:
            raise EngineError(f"{self._url}: keeps what it computed with old weights; something else asks it at the same time")

    def take_adapter(self, folder: Path) -> None:
        """As Machine has it."""
        before, self._adapter = self._adapter, adapter_name(folder)
        if not self._first:
            return
        # In place: a run that goes on may bring what an earlier try has left there.
        told = {"lora_name": self._adapter, "lora_path": str(folder.resolve()), "load_inplace": True}
        self._call("POST", "/v1/load_lora_adapter", told, f"; it must see {folder.resolve()}")
        if before not in (None, self._adapter):
            self._call("POST", "/v1/unload_lora_adapter", {"lora_name": before})

    def close(self) -> None:
        """As Machine has it; the server runs on."""
        if self._adapter is not None and self._first:
            with suppress(EngineError):  # it may be gone
                self._call("POST", "/v1/unload_lora_adapter", {"lora_name": self._adapter})
        self._client.close()

    def _call(self, method: str, path: str, body: Any = None, hint: str = "") -> Any:
        """What the server says; `hint` is what may be at fault where it refuses."""
        try:
            response = self._client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            reason = self._short(str(error)) or type(error).__name__
            raise EngineError(
                f"{self._url}: vLLM's server does not answer ({reason}){hint}; start it ({self._launch}), then run the same "
                "command again, which goes on from the last checkpoint"
            ) from error
        if response.is_error:
            said = self._short(response.text)
            if response.status_code == 404:
                raise self._wrong(f"does not know {path} ({said}){hint}")
            raise EngineError(f"{self._url}: {path} fails ({response.status_code}: {said}){hint}")
        try:
            return response.json() if "json" in response.headers.get("content-type", "") else None
        except ValueError as error:
            raise self._wrong(f"answers no JSON at {path}") from error

    def _short(self, text: str) -> str:
        """One line of what others say, without our key."""
        line = " ".join(text.split())[:300]
        return line.replace(self._key, "...") if self._key else line

    def _wrong(self, what: str) -> EngineError:
        return EngineError(f"{self._url}: the server {what}; start it as {self._launch}")


def launch(manner: Manner, lora: Lora | None) -> str:
    """The command that starts a server for a training of this model."""
    told = settings(manner) | {"enable_scale_out": True} | drawing(lora)  # tokens in and out
    environment = {"VLLM_SERVER_DEV_MODE": "1"}  # new weights
    if lora is not None:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    words = ["vllm", "serve", manner.name]
    for name, value in told.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(value if isinstance(value, str) else json.dumps(value))
    return " ".join([*(f"{key}={value}" for key, value in environment.items()), shlex.join(words)])


def _drawn(choice: Mapping[str, Any]) -> Drawn:
    said = choice["logprobs"]["content"]
    return Drawn(tuple(choice["token_ids"]), tuple(each["logprob"] for each in said), str(choice["finish_reason"]))


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
