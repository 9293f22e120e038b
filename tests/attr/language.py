"""A small causal language model and a tokenizer of words, as Captum's LLMAttribution wants them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WORDS = [
    *("<none>", ".", "the", "a", "old", "young", "sad", "happy", "dog", "cat", "bird"),
    *("sees", "hears", "likes", "small", "big", "red", "in", "park", "house"),
]


class Tokenizer:
    """Words of a fixed list; a word that is not on it is ``<none>``."""

    def encode(self, text: str, add_special_tokens: bool = True, return_tensors: str | None = None) -> Any:
        ids = [WORDS.index(word) if word in WORDS else 0 for word in text.split()]
        return torch.tensor([ids or [0]]) if return_tensors else ids

    def decode(self, token_ids: Tensor) -> str:
        return " ".join(WORDS[int(index)] for index in token_ids)

    def convert_ids_to_tokens(self, token_ids: Any) -> Any:
        return WORDS[token_ids] if isinstance(token_ids, int) else [WORDS[index] for index in token_ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return WORDS.index(tokens) if isinstance(tokens, str) else [WORDS.index(word) for word in tokens]

    def __call__(self, text: str, add_special_tokens: bool = True, return_offsets_mapping: bool = False) -> dict[str, Any]:
        ends = [match.span() for match in re.finditer(r"\S+", text)]
        return {"input_ids": self.encode(text), "offset_mapping": ends}


@dataclass
class Output:
    logits: Tensor
    past_key_values: Tensor


class CausalModel(nn.Module):
    """A recurrent language model; its state is what it caches. ``calls`` counts forwards, ``tokens`` what they read."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(len(WORDS), width), nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, len(WORDS))
        self.calls = self.tokens = 0

    @property
    def device(self) -> torch.device:
        return self.out.weight.device

    def forward(self, input_ids: Tensor, past_key_values: Tensor | None = None, **others: Any) -> Output:
        self.calls, self.tokens = self.calls + len(input_ids), self.tokens + input_ids.numel()
        hidden, state = self.mix(self.embed(input_ids), past_key_values)
        return Output(self.out(hidden), state)

    def generate(self, input_ids: Tensor, max_new_tokens: int = 3, **others: Any) -> Tensor:
        for _ in range(max_new_tokens):
            input_ids = torch.cat([input_ids, self(input_ids).logits[:, -1:].argmax(-1)], dim=1)
        return input_ids

    def prepare_inputs_for_generation(self, input_ids: Tensor, past_key_values: Any = None, **others: Any) -> dict[str, Any]:
        return {"input_ids": input_ids if past_key_values is None else input_ids[:, -1:], "past_key_values": past_key_values}

    def _update_model_kwargs_for_generation(self, outputs: Output, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**model_kwargs, "past_key_values": outputs.past_key_values}


def causal_model(seed: int = 0) -> CausalModel:
    """With random weights, large enough for words to matter and to act on each other."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CausalModel()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight *= 3.0 if name.startswith("mix") else 2.0
    return model.eval()
