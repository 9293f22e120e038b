"""Prototypical networks derived again, class by class."""

from dataclasses import replace

import pytest
import torch

from captum_meta.learners import PrototypicalNetwork
from captum_meta.nn import EuclideanSimilarity, RawInputs, ShapleyExplainer
from captum_meta.nn.encoders import Statistics
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Explanations

LABELS = torch.tensor([7, 3, 7, 3, 7, 9])


@pytest.fixture(scope="module")
def explained() -> Explanations:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=9, seed=5)[6][0].to(dtype=torch.float64)
    return replace(rows, evidence=replace(rows.evidence, coalitions=None))


def network(**arguments: object) -> PrototypicalNetwork:
    torch.manual_seed(0)
    learner = PrototypicalNetwork(ShapleyExplainer(16, 1), **arguments).double().eval()  # type: ignore[arg-type]
    return learner.requires_grad_(False)


def keys_of(learner: PrototypicalNetwork, support: Explanations, rows: Explanations) -> torch.Tensor:
    evidence = rows.evidence
    known = Statistics.of(learner.explainer.prior(support.evidence), support.evidence)
    return learner.project(learner.encoder(learner.explainer.prior(evidence), evidence, known))


@pytest.mark.parametrize("labelled", [True, False])
def test_attributions_of_the_nearest_prototypes(explained: Explanations, labelled: bool) -> None:
    """Literal form: a softmax over the squared distances from the classes' mean keys weighs their mean attributions."""
    learner = network(values="attributions", similarity=EuclideanSimilarity(), clusters=3)
    support, query = replace(explained[:6], labels=LABELS if labelled else None), explained[6:]
    keys, asked = keys_of(learner, support, support), keys_of(learner, support, query)
    classes = [[1.0 if int(label) == c else 0.0 for label in LABELS] for c in (3, 7, 9)]
    if not labelled:
        distances = [[float((keys[s].mean(0) - centre).square().sum()) for centre in learner.centres] for s in range(6)]
        shares = [(-torch.tensor(row)).softmax(0).tolist() for row in distances]
        classes = [[shares[s][c] for s in range(6)] for c in range(3)]

    def mean(values: torch.Tensor, member: list[float]) -> torch.Tensor:
        return sum(m * value for m, value in zip(member, values, strict=True)) / sum(member)  # type: ignore[return-value]

    prototypes = [mean(keys, member) for member in classes]
    values = [mean(support.attributions, member) for member in classes]
    found = learner.propose(learner.adapt(support), query.evidence).attributions
    for row in range(3):
        for player in range(found.shape[1]):
            scores = torch.stack([-(asked[row, player] - p[player]).square().sum() for p in prototypes])
            weights = scores.softmax(0)
            expected = sum(w * v[player] for w, v in zip(weights, values, strict=True))
            assert torch.allclose(found[row, player], expected, atol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, None])
def test_left_out_memories_are_memories_of_the_other_rows(explained: Explanations, labels: torch.Tensor | None) -> None:
    learner = network(head="none")
    support = replace(explained[:6], labels=labels)
    keys, values, players = keys_of(learner, support, support), support.attributions, support.evidence.players
    scores, others, known = learner.remember_without(keys, values, players, labels)
    for row in range(6):
        rest = torch.arange(6) != row
        memory = learner.remember(keys[rest], values[rest], players[rest], None if labels is None else labels[rest])
        expected = learner.similarity(keys[row].unsqueeze(-2), memory.keys.transpose(0, 1)).squeeze(-2)
        columns = torch.ones(scores.shape[-1], dtype=torch.bool)
        if labels is not None:
            columns = torch.tensor([c in labels[rest] for c in (3, 7, 9)])
        assert torch.equal(known[:, row][:, columns], memory.players.mT) and not known[:, row][:, ~columns].any()
        assert torch.allclose(scores[:, row][:, columns], expected, atol=1e-6)
        assert torch.allclose(others[row][columns], memory.values, atol=1e-6)


def test_support_weights_sum_to_one_and_follow_the_classes(explained: Explanations) -> None:
    learner = network(values="attributions", similarity=EuclideanSimilarity(temperature=1e-4))
    support = replace(explained[:6], labels=torch.arange(6))
    weights = learner.support_weights(support, support.evidence)
    assert torch.allclose(weights, torch.eye(6).double(), atol=1e-6)
    learner = network()
    always_missed = learner.explainer(support.evidence).attributions + support.attributions[:1]
    weights = learner.support_weights(Explanations(support.evidence, always_missed, labels=LABELS), explained[6:].evidence)
    assert torch.allclose(weights.sum(-1), torch.ones(3).double())


def test_keys_of_any_width_have_no_clusters() -> None:
    with pytest.raises(ValueError, match="use an InputEncoder"):
        network(encoder=RawInputs())
