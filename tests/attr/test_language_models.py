"""Captum's LLMAttribution and LLMGradientAttribution over the front ends, beside exact Shapley values of a small model."""

from typing import Any

import pytest
import torch
from captum.attr import (
    KernelShap,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMGradientAttribution,
    ShapleyValueSampling,
    TextTemplateInput,
    TextTokenInput,
)
from torch import Tensor

from captum_meta.attr import MetaKernelShap, MetaLayerIntegratedGradients, MetaShapleyValueSampling
from captum_meta.estimators import all_coalitions, shapley_values
from tests.attr.language import Tokenizer, causal_model

TARGET = "the cat likes"
TOKENIZER = Tokenizer()


def by_words(values: Any) -> str:
    return "the {} {} {} the {} {} in the {} {}".format(*values)


VALUES = ["old", "dog", "sees", "small", "bird", "red", "park"]
INPUTS: dict[str, Any] = {
    "list": lambda: TextTemplateInput("the {} {} {} the {} {} in the {} {}", VALUES),
    "dict": lambda: TextTemplateInput(
        "the {how} {who} {does} the {what}",
        {"how": "old", "who": "dog", "does": "sees", "what": "bird"},
        {"how": "young", "who": "cat", "does": "hears", "what": "house"},
    ),
    "function": lambda: TextTemplateInput(lambda *values: by_words(values), VALUES, ["<none>"] * 7),
    "mask": lambda: TextTemplateInput("the {} {} {} the {} {} in the {} {}", VALUES, mask=[0, 0, 4, 7, 7, 9, 9]),
    "tokens": lambda: TextTokenInput("old dog sees small bird", TOKENIZER),
    "some tokens": lambda: TextTokenInput("the old dog sees a small bird", TOKENIZER, skip_tokens=["the", "a"]),
}


def exact(model: Any, inp: Any, target: str = TARGET) -> Tensor:
    """Shapley values ``(1 + tokens, values)`` of the log-probabilities of the target and its tokens, from all coalitions."""
    ids = torch.tensor(TOKENIZER.encode(target))
    members, worths = all_coalitions(inp.n_itp_features), []
    for coalition in members:
        prompt = inp.to_model_input(coalition.to(inp.to_tensor().dtype).unsqueeze(0))
        prompt = TOKENIZER.encode(prompt, return_tensors="pt") if isinstance(prompt, str) else prompt
        together = torch.cat([prompt[0], ids])
        logs = model(together.unsqueeze(0)).logits[0].log_softmax(-1)[len(prompt[0]) - 1 : -1]
        each = logs.gather(1, ids.unsqueeze(1)).squeeze(1)
        worths.append(torch.cat([each.sum().unsqueeze(0), each]))
    return inp.format_attr(shapley_values(torch.stack(worths, dim=1).detach().double()).float())


def error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).square().sum() / reference.square().sum())


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", INPUTS)
def test_every_input_at_full_budget_is_exact(name: str, cached: bool) -> None:
    model, inp = causal_model(), INPUTS[name]()
    found = LLMAttribution(MetaShapleyValueSampling(model), TOKENIZER).attribute(
        inp, target=TARGET, n_samples=40, use_cached_outputs=cached
    )
    reference = exact(model, inp)
    assert torch.allclose(found.seq_attr, reference[0], atol=1e-4)
    assert torch.allclose(found.token_attr, reference[1:], atol=1e-4)  # type: ignore[arg-type]
    assert found.input_tokens == inp.values
    assert found.output_tokens == TARGET.split()
    kernel = LLMAttribution(MetaKernelShap(model), TOKENIZER)
    whole = kernel.attribute(inp, target=TARGET, n_samples=200, use_cached_outputs=cached)
    assert torch.allclose(whole.seq_attr, reference[0], atol=1e-4)
    assert whole.token_attr is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("theirs", "ours", "budgets"),
    [(KernelShap, MetaKernelShap, (14, 25, 60)), (ShapleyValueSampling, MetaShapleyValueSampling, (2, 4, 10))],
)
def test_errors_at_equal_samples_are_below_those_of_captum(theirs: Any, ours: Any, budgets: Any, seed: int) -> None:
    model, inp = causal_model(seed), INPUTS["list"]()
    reference = exact(model, inp)[:1]
    for n_samples in budgets:
        errors = [
            error(
                LLMAttribution(method(model), TOKENIZER).attribute(inp, target=TARGET, n_samples=n_samples).seq_attr,
                reference[0],
            )
            for method in (ours, theirs)
        ]
        assert errors[0] <= errors[1]


def test_tokens_of_the_target_are_outputs_of_the_same_evaluations() -> None:
    counts = []
    for target in ("cat", "cat likes the dog ."):
        model = causal_model()
        LLMAttribution(MetaShapleyValueSampling(model), TOKENIZER).attribute(
            INPUTS["list"](), target=target, n_samples=4, forward_in_tokens=False
        )
        counts.append(model.calls)
    assert counts[0] == counts[1]
    assert counts[0] <= 4 * 7 + 10


def test_further_arguments_of_captums() -> None:
    model, inp = causal_model(), INPUTS["list"]()
    method = LLMAttribution(MetaShapleyValueSampling(model), TOKENIZER)
    made = method.attribute(inp, n_samples=3, gen_args={"max_new_tokens": 4})
    assert made.token_attr is not None and made.token_attr.shape == (4, 7)
    one, several = (method.attribute(inp, target=TARGET, n_samples=3, num_trials=trials) for trials in (1, 2))
    assert torch.allclose(one.seq_attr, several.seq_attr)
    chances = LLMAttribution(MetaShapleyValueSampling(model), TOKENIZER, attr_target="prob")
    by_token, by_sequence = (
        chances.attribute(inp, target=TARGET, n_samples=3, forward_in_tokens=way) for way in (True, False)
    )
    assert torch.allclose(by_token.seq_attr, by_sequence.seq_attr, atol=1e-6)


@pytest.mark.parametrize("name", ["tokens", "some tokens"])
def test_gradient_attributions_are_those_of_a_long_run(name: str) -> None:
    model, inp = causal_model(), INPUTS[name]()
    theirs = LLMGradientAttribution(LayerIntegratedGradients(model, model.embed), TOKENIZER)
    reference = theirs.attribute(inp, target=TARGET, n_steps=500)
    ours = LLMGradientAttribution(MetaLayerIntegratedGradients(model, model.embed), TOKENIZER)
    for n_steps in (None, 10):
        found = ours.attribute(inp, target=TARGET, n_steps=n_steps)
        beside = theirs.attribute(inp, target=TARGET, n_steps=11)
        assert error(found.token_attr, reference.token_attr) <= max(error(beside.token_attr, reference.token_attr), 1e-5)  # type: ignore[arg-type]
        assert torch.allclose(found.seq_attr, found.token_attr.sum(0), atol=1e-5)  # type: ignore[union-attr]
