"""Similarities, each pair of keys written out; and encoders."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor

from captum_meta.nn import (
    AttentionSimilarity,
    CosineSimilarity,
    DistanceSimilarity,
    EmbeddingEncoder,
    EuclideanSimilarity,
    EvidenceEncoder,
    InputEncoder,
    MLPSimilarity,
    RawInputs,
    ShapleyExplainer,
    Similarity,
)
from captum_meta.nn.encoders import Statistics
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Evidence


def dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def cosine(similarity: Similarity, q: Tensor, k: Tensor) -> float:
    return dot(q, k) / sqrt(dot(q, q) * dot(k, k))


def euclidean(similarity: Similarity, q: Tensor, k: Tensor) -> float:
    return -dot(q - k, q - k)


def distance(similarity: Similarity, q: Tensor, k: Tensor) -> float:
    return -sqrt(dot(q - k, q - k))


def mlp(similarity: Similarity, q: Tensor, k: Tensor) -> float:
    assert isinstance(similarity, MLPSimilarity)
    apart = torch.tensor([abs(float(a) - float(b)) for a, b in zip(q, k, strict=True)]).double()
    hidden = similarity.query.weight @ q + similarity.query.bias + similarity.key.weight @ k
    hidden = hidden + similarity.distance.weight @ apart
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    return float((similarity.out.weight[0] @ (hidden * normal.cdf(hidden)) + similarity.out.bias).detach())


def attention(similarity: Similarity, q: Tensor, k: Tensor) -> float:
    assert isinstance(similarity, AttentionSimilarity)
    left, right = similarity.query.weight @ q, similarity.key.weight @ k
    size = len(q) // similarity.heads
    parts = [
        exp(dot(left[h * size : (h + 1) * size], right[h * size : (h + 1) * size]) / sqrt(size))
        for h in range(similarity.heads)
    ]
    return log(sum(parts) / similarity.heads)


SIMILARITIES: dict[str, tuple[Callable[[], Similarity], Callable[[Similarity, Tensor, Tensor], float]]] = {
    "cosine": (CosineSimilarity, cosine),
    "euclidean": (EuclideanSimilarity, euclidean),
    "distance": (DistanceSimilarity, distance),
    "mlp": (lambda: MLPSimilarity(6, hidden=5), mlp),
    "attention": (lambda: AttentionSimilarity(6, heads=3), attention),
}


@pytest.mark.parametrize("name", SIMILARITIES)
class TestEverySimilarity:
    def test_is_its_formula_over_the_temperature(self, name: str) -> None:
        torch.manual_seed(0)
        make, formula = SIMILARITIES[name]
        similarity = make().double()
        similarity.log_temperature.data.fill_(log(0.7))
        queries, keys = torch.randn(2, 4, 6).double(), torch.randn(2, 3, 6).double()
        scores = similarity(queries, keys)
        expected = [[[formula(similarity, q, k) / 0.7 for k in keys[b]] for q in queries[b]] for b in range(2)]
        assert torch.allclose(scores, torch.tensor(expected, dtype=torch.float64))

    def test_the_temperature_is_learned(self, name: str) -> None:
        similarity = SIMILARITIES[name][0]()
        similarity(torch.randn(4, 6), torch.randn(3, 6)).softmax(-1)[:, 0].sum().backward()
        assert similarity.log_temperature.grad is not None and similarity.log_temperature.grad.isfinite()

    def test_its_arguments_make_it_again(self, name: str) -> None:
        similarity = SIMILARITIES[name][0]()
        again = type(similarity)(**similarity.arguments())
        again.load_state_dict(similarity.state_dict())
        queries, keys = torch.randn(4, 6), torch.randn(3, 6)
        assert torch.equal(similarity(queries, keys), again(queries, keys))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide"):
        AttentionSimilarity(16, heads=3)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    measured = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=6, seed=5)[6].evidence
    embedding = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    return replace(measured, coalitions=None, embedding=embedding)


ENCODERS = {
    "raw inputs": RawInputs,
    "inputs": lambda: InputEncoder(8),
    "evidence": lambda: EvidenceEncoder(16, 8),
    "embedding": lambda: EmbeddingEncoder("layer", 8),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_keys_do_not_depend_on_units(name: str, evidence: Evidence) -> None:
    """Inputs in other units, outputs in other units: the keys stay."""
    torch.manual_seed(0)
    encoder, explainer = ENCODERS[name]().double(), ShapleyExplainer(16, 1).double()
    evidence = evidence.to(dtype=torch.float64)
    assert evidence.inputs is not None and evidence.embedding is not None
    other = replace(
        evidence,
        effects=7 * evidence.effects,
        total=7 * evidence.total,
        curve=7 * evidence.curve,
        inputs=3 * evidence.inputs + 2,
        embedding=3 * evidence.embedding - 1,
    )
    priors = [explainer.prior(e) for e in (evidence, other)]
    keys = [encoder(prior, e, Statistics.of(prior, e)) for prior, e in zip(priors, (evidence, other), strict=True)]
    assert torch.allclose(*keys, atol=1e-6)
    assert keys[0].std() > 0.01


def test_raw_inputs_are_standardised_by_the_support_rows(evidence: Evidence) -> None:
    x = evidence.inputs
    assert x is not None
    prior = ShapleyExplainer(16, 1).prior(evidence)
    keys = RawInputs()(prior, evidence, Statistics.of(prior, evidence))
    task, player = 1, 2
    column = x[task, :, player, 0]
    variances = x[task, :, :, 0].var(0, correction=0)
    deviation = (variances[player] + 0.1 * variances.mean()).sqrt()
    expected = (x[task, :, player] - column.mean()) / deviation
    assert torch.allclose(keys[task, :, 0, 2 * player : 2 * player + 2], expected, atol=1e-5)


def test_projected_embeddings_keep_their_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(40, 300, generator=generator)
    base = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=40, seed=5)[6].evidence[0]
    evidence = replace(base, coalitions=None, embedding=embedding)
    encoder = EmbeddingEncoder("layer", 128)
    prior = ShapleyExplainer(16, 1).prior(evidence)
    keys = encoder(prior, evidence, Statistics.of(prior, evidence))[:, 0]
    ratio = torch.pdist(keys) / torch.pdist(embedding)
    assert ratio.std() / ratio.mean() < 0.15


def test_what_an_encoder_cannot_read_it_names(evidence: Evidence) -> None:
    prior = ShapleyExplainer(16, 1).prior(evidence)
    blind = replace(evidence, inputs=None, embedding=None)
    for encoder, words in ((RawInputs(), "use an EvidenceEncoder"), (EmbeddingEncoder("head"), "module 'head'")):
        with pytest.raises(ValueError, match=words):
            encoder(prior, blind, Statistics.of(prior, blind))
    assert EvidenceEncoder(16)(prior, blind, Statistics.of(prior, blind)).isfinite().all()


def test_the_distance_to_oneself_has_a_finite_gradient() -> None:
    keys = torch.randn(3, 4, requires_grad=True)
    DistanceSimilarity()(keys, keys).sum().backward()
    assert keys.grad is not None and keys.grad.isfinite().all()
