"""Further inputs and targets of Captum's wrappers of language models, over the front ends that stand in for its methods."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    ImageMaskInput,
    LayerGradientShap,
    LLMAttribution,
    LLMGradientAttribution,
    RemoteLLMAttribution,
    RemoteLLMProvider,
    ShapleyValueSampling,
    TextTemplateInput,
    TextTokenInput,
)
from PIL import Image
from torch import Tensor, nn

from captum_meta.attr import MetaKernelShap, MetaLayerGradientShap, MetaShapleyValueSampling
from captum_meta.estimators import all_coalitions, shapley_values
from tests.attr.language import WORDS, Tokenizer, causal_model

TOKENIZER, TARGET = Tokenizer(), "the cat likes"


def exact(wrapped: LLMAttribution, inp: Any, target: Tensor) -> Tensor:
    """Shapley values of what Captum's wrapper asks of the model, from all coalitions, ``(1 + tokens, values)``."""
    worths = [
        wrapped._forward_func(members.float().unsqueeze(0), inp, target) for members in all_coalitions(inp.n_itp_features)
    ]
    values = shapley_values(torch.cat(worths).detach().double().T).float()
    return inp.format_attr(values)


@pytest.mark.parametrize("attr_target", ["log_prob", "prob"])
@pytest.mark.parametrize("cached", [False, True])
def test_chances_of_the_target_and_of_its_tokens(attr_target: str, cached: bool) -> None:
    inp = TextTemplateInput("{} {} {} a {}", ["old", "dog", "sees", "bird"], ["young", "cat", "hears", "house"])
    wrapped = LLMAttribution(MetaShapleyValueSampling(causal_model()), TOKENIZER, attr_target=attr_target)
    found = wrapped.attribute(inp, target=torch.tensor(TOKENIZER.encode(TARGET)), n_samples=10, use_cached_outputs=cached)
    reference = exact(wrapped, inp, torch.tensor(TOKENIZER.encode(TARGET)))
    assert torch.allclose(found.seq_attr, reference[0], atol=1e-4)
    assert torch.allclose(found.token_attr, reference[1:], atol=1e-4)  # type: ignore[arg-type]
    kernel = LLMAttribution(MetaKernelShap(causal_model()), TOKENIZER, attr_target=attr_target)
    found = kernel.attribute(inp, target=TARGET, n_samples=14, use_cached_outputs=cached)
    assert torch.allclose(found.seq_attr, reference[0], atol=1e-4)


def test_baselines_that_a_function_gives_and_masks_by_name() -> None:
    values = {"how": "old", "who": "dog", "does": "sees", "what": "bird"}
    inp = TextTemplateInput(
        "the {how} {who} {does} the {what}",
        values,
        lambda: {"how": "young", "who": "cat", "does": "hears", "what": "house"},
        mask={"how": 0, "who": 0, "does": 1, "what": 2},
    )
    wrapped = LLMAttribution(MetaShapleyValueSampling(causal_model()), TOKENIZER)
    found = wrapped.attribute(inp, target=TARGET, n_samples=5, num_trials=2)
    reference = exact(wrapped, inp, torch.tensor(TOKENIZER.encode(TARGET)))
    assert torch.allclose(found.seq_attr, reference[0], atol=1e-4)
    assert found.seq_attr[0] == found.seq_attr[1]


@pytest.mark.parametrize("options", [{"baselines": "<none>"}, {"baselines": 4}, {"skip_tokens": [2]}])
def test_tokens_with_baselines_and_tokens_that_are_skipped(options: dict[str, Any]) -> None:
    inp = TextTokenInput("the old dog sees bird", TOKENIZER, **options)
    wrapped = LLMAttribution(MetaShapleyValueSampling(causal_model()), TOKENIZER)
    found = wrapped.attribute(inp, target=TARGET, n_samples=20)
    assert torch.allclose(found.seq_attr, exact(wrapped, inp, torch.tensor(TOKENIZER.encode(TARGET)))[0], atol=1e-4)


class Seeing(nn.Module):
    """A language model that is given an image beside the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.eyes = causal_model(), nn.Linear(48, len(WORDS))
        self.device = torch.device("cpu")

    def forward(self, input_ids: Tensor, pixels: Tensor, **others: Any) -> Any:
        logits = self.words(input_ids).logits + 3 * self.eyes(pixels.flatten(1)).tanh().unsqueeze(1)
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("listed", [False, True])
def test_segments_of_an_image(listed: bool) -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    mask = torch.tensor([[0, 0, 5, 5], [0, 0, 5, 5], [7, 7, 9, 9], [7, 7, 9, 9]])

    def processed(image: Image.Image) -> dict[str, Tensor]:
        ids = TOKENIZER.encode("a small dog", return_tensors="pt")
        return {"input_ids": ids, "pixels": torch.tensor(np.array(image)).float().unsqueeze(0) / 255}

    segments = {"mask_list": [mask == place for place in (0, 5, 7, 9)]} if listed else {"mask": mask}
    inp = ImageMaskInput(Image.fromarray(pixels), processor_fn=processed, **segments)
    wrapped = LLMAttribution(MetaShapleyValueSampling(Seeing().eval()), TOKENIZER)
    found = wrapped.attribute(inp, target=TARGET, n_samples=10, use_cached_outputs=False, forward_in_tokens=False)
    target = torch.tensor(TOKENIZER.encode(TARGET))
    worths = [
        wrapped._forward_func(members.float().unsqueeze(0), inp, target, forward_in_tokens=False)
        for members in all_coalitions(4)
    ]
    reference = shapley_values(torch.cat(worths).detach().double().T).float()
    assert found.seq_attr.shape == (4,) and bool(found.seq_attr.abs().min() > 0)
    assert torch.allclose(found.seq_attr, reference[0], atol=1e-4)


class Remote(RemoteLLMProvider):
    """A model behind an interface that gives chances alone."""

    api_url = "none"

    def generate(self, prompt: str, **gen_args: Any) -> str:
        return TARGET

    def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any = None) -> list[float]:
        ids = torch.tensor(TOKENIZER.encode(f"{input_prompt} {target_str}"))
        count = len(TOKENIZER.encode(target_str))
        logs = causal_model()(ids.unsqueeze(0)).logits[0].log_softmax(-1)[-count - 1 : -1]
        return logs.gather(1, ids[-count:].unsqueeze(1)).squeeze(1).tolist()


def test_a_model_behind_an_interface() -> None:
    inp = TextTemplateInput("{} {} {}", ["old", "dog", "sees"], ["young", "cat", "hears"])
    placeholder = causal_model()  # never asked, as Captum's wrapper says
    theirs, ours = (
        RemoteLLMAttribution(method(placeholder), TOKENIZER, Remote()).attribute(inp, target=TARGET, n_samples=samples)
        for method, samples in ((ShapleyValueSampling, 200), (MetaShapleyValueSampling, 4))
    )
    assert torch.allclose(ours.seq_attr, theirs.seq_attr, atol=0.2 * float(theirs.seq_attr.abs().max()))
    total = sum(Remote().get_logprobs("old dog sees", TARGET)) - sum(Remote().get_logprobs("young cat hears", TARGET))
    assert torch.allclose(ours.seq_attr.sum(), torch.tensor(total), atol=1e-4)


def test_expected_gradients_of_the_embedding() -> None:
    """With more than one draw Captum repeats the entries of its own argument of target tokens, and reads other tokens."""
    model, inp = causal_model(), TextTokenInput("old dog sees small bird", TOKENIZER)
    baselines = torch.zeros(1, 5, dtype=torch.long)
    ours, theirs = (
        LLMGradientAttribution(method(model, model.embed), TOKENIZER).attribute(
            inp, target=TARGET, baselines=baselines, n_samples=draws
        )
        for method, draws in ((MetaLayerGradientShap, 30), (LayerGradientShap, 1))
    )
    assert ours.token_attr is not None and theirs.token_attr is not None
    assert ours.token_attr.shape == (3, 5)
    assert torch.allclose(ours.token_attr, theirs.token_attr, atol=1e-5)
