"""Matching networks and their closed-form head derived again, row by row."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_meta.learners import MatchingNetwork
from captum_meta.learners._coordinates import SupportCoordinates, coordinates
from captum_meta.learners._head import ClosedFormHead
from captum_meta.nn import CosineSimilarity, EvidenceEncoder, InputEncoder, MLPSimilarity, RawInputs, ShapleyExplainer
from captum_meta.nn.encoders import Statistics, effect_sizes
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Explanations


@pytest.fixture(scope="module")
def explained() -> Explanations:
    """Nine rows of one model, in double precision, with exact labels."""
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=9, seed=5)[2][0].to(dtype=torch.float64)
    return replace(rows, evidence=replace(rows.evidence, coalitions=None))


def network(**arguments: object) -> MatchingNetwork:
    torch.manual_seed(0)
    learner = MatchingNetwork(ShapleyExplainer(16, 1), **arguments).double().eval()  # type: ignore[arg-type]
    for parameter in learner.parameters():
        if parameter.dim() > 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return learner.requires_grad_(False)


def statistics(learner: MatchingNetwork, support: Explanations) -> Statistics:
    return Statistics.of(learner.explainer.prior(support.evidence), support.evidence)


def softmax(scores: list[float]) -> list[float]:
    powers = torch.tensor(scores, dtype=torch.float64).exp()
    return (powers / powers.sum()).tolist()


def test_retrieval_alone_is_attention_to_residuals(explained: Explanations) -> None:
    """phi_q = phi0_q + b tanh(gamma sum_s a(q, s) rho_s / b), each player's attention for itself."""
    learner = network(head="none", similarity=CosineSimilarity())
    support, query = explained[:6], explained[6:].evidence
    stats = statistics(learner, support)
    right = learner.explainer(support.evidence).attributions
    rho = support.attributions - right
    keys = learner.project(learner.encoder(learner.explainer.prior(support.evidence), support.evidence, stats))
    asked = learner.project(learner.encoder(learner.explainer.prior(query), query, stats))
    n_players, threshold = rho.shape[1], float(learner.threshold)
    temperature = float(learner.similarity.log_temperature.exp())  # type: ignore[attr-defined]

    def weights(q: Tensor, rows: list[int], player: int) -> list[float]:
        scores = [float(torch.cosine_similarity(q[player], keys[s, player], dim=0)) / temperature for s in rows]
        return softmax([*scores, threshold])[:-1]

    left = torch.zeros_like(rho)
    for row in range(6):
        others = [s for s in range(6) if s != row]
        for player in range(n_players):
            found = weights(keys[row], others, player)
            left[row, player] = sum(w * rho[s, player] for w, s in zip(found, others, strict=True))
    gamma = float(((left * rho).sum() / (left.square().sum() * (1 + 2 / 6))).clamp(0, 1.5))
    added = torch.zeros(3, n_players).double()
    for row in range(3):
        for player in range(n_players):
            found = weights(asked[row], list(range(6)), player)
            added[row, player] = gamma * sum(w * rho[s, player] for w, s in zip(found, range(6), strict=True))
    bound = 3 * torch.where(query.measured, query.effects.abs(), 0.0).sum(-1) / query.measured.sum(-1)
    prior = learner.explainer.prior(query)
    values = prior.attributions + bound * torch.tanh(added / bound)
    expected = values - prior.spread * (values.sum(-1) - query.total).unsqueeze(-1)
    assert torch.allclose(learner.predict(learner.adapt(support), query), expected, atol=1e-9)


def test_the_head_is_bayesian_regression_on_all_players_of_all_rows(explained: Explanations) -> None:
    """The whole covariance written out: shared features over all pairs, own features within a player, noise."""
    torch.manual_seed(1)
    learner, support = network(), explained[:5]
    head = learner.head
    assert isinstance(head, ClosedFormHead)
    stats = statistics(learner, support)
    prior = learner.explainer.prior(support.evidence)
    residual = support.attributions - learner.explainer(support.evidence).attributions
    unit = float(stats.unit)
    hidden = head.encoder(prior, support.evidence, stats)
    size = (effect_sizes(support.evidence) / unit).unsqueeze(-1)
    psi, chi = head.shared_features(hidden) * size, head.own_features(hidden) * size
    noise = (head.log_noise(hidden).exp() * size).squeeze(-1) ** 2
    noise = noise + 1e-4 * ((psi**2).sum(-1) + (chi**2).sum(-1)) + float(head.floor.exp()) ** 2
    n_rows, n_players = residual.shape
    pairs = [(n, i) for n in range(n_rows) for i in range(n_players)]
    r = torch.stack([residual[p] / unit for p in pairs])

    def covariance(one: tuple[int, int], other: tuple[int, int]) -> Tensor:
        return psi[one] @ psi[other] + (chi[one] @ chi[other] if one[1] == other[1] else 0.0)

    signal = torch.stack([torch.stack([covariance(a, b) for b in pairs]) for a in pairs])
    fits, errors, left_out = [], [], []
    for tau in (0.1, 1.0, 10.0):
        full = signal + torch.diag(torch.stack([tau * noise[p] for p in pairs]))
        left = torch.zeros(n_rows, n_players).double()
        for row in range(n_rows):
            kept = [k for k, p in enumerate(pairs) if p[0] != row]
            gone = [k for k, p in enumerate(pairs) if p[0] == row]
            left[row] = signal[gone][:, kept] @ torch.linalg.solve(full[kept][:, kept], r[kept])
        left = left - prior.spread * left.sum(-1, keepdim=True)
        errors.append(float((residual / unit - left).square().sum()))
        left_out.append(left)
        fits.append(torch.linalg.solve(full, r))
    nothing = float((residual / unit).square().sum())
    logs = [float(torch.tensor(error + 1e-3 * nothing + 1e-12).log()) for error in [*errors, nothing]]
    logits = [-float(head.sharpness.exp()) * n_rows * log for log in logs]
    logits[-1] += float(head.reluctance) * n_rows**0.5
    shares = softmax(logits)[:-1]
    averaged = sum(share * left for share, left in zip(shares, left_out, strict=True))
    strength = gain = 0.0
    where = SupportCoordinates.of(coordinates(prior, support.evidence, stats), support.evidence.players)
    for decay in (0.3, 0.1):
        applied = averaged * torch.exp(-decay * where.isolation()).unsqueeze(-1)
        agreement, size = (applied * residual / unit).sum(-1), float(applied.square().sum())
        sure = float(agreement.sum() - agreement.std() * n_rows**0.5)
        share = min(max(sure / size, 0.0), 1.0)
        if share * (2 * sure - share * size) > gain:
            strength, gain = share, share * (2 * sure - share * size)
    assert 0 < strength < 1
    shares = [strength * share for share in shares]
    dual = sum(share * fit for share, fit in zip(shares, fits, strict=True))
    w = sum(d * psi[p] for d, p in zip(dual, pairs, strict=True))
    state, _, _ = head.fit(support, prior, residual, stats, where)
    assert torch.allclose(state.shared, w, atol=1e-6)
    for player in range(n_players):
        u = sum(d * chi[p] for d, p in zip(dual, pairs, strict=True) if p[1] == player)
        assert torch.allclose(state.own[player], u, atol=1e-6)


def literal() -> MatchingNetwork:
    return network(encoder=RawInputs(), similarity=CosineSimilarity(), values="attributions")


def test_the_literal_form_combines_support_attributions(explained: Explanations) -> None:
    learner, support, query = literal(), explained[:6], explained[6:].evidence
    x = torch.cat([support.evidence.inputs, query.inputs])  # type: ignore[list-item]
    column = x[:6, :, 0]
    variance = column.var(0, correction=0)
    z = (x - column.mean(0).unsqueeze(-1)) / (variance + 0.1 * variance.mean()).sqrt().unsqueeze(-1)
    z = z.flatten(1)
    temperature = float(learner.similarity.log_temperature.exp())  # type: ignore[attr-defined]
    prior = learner.explainer.prior(query)
    for row in range(3):
        scores = [float(torch.cosine_similarity(z[6 + row], z[s], dim=0)) / temperature for s in range(6)]
        combined = sum(a * phi for a, phi in zip(softmax(scores), support.attributions, strict=True))
        expected = combined - prior.spread[row] * (combined.sum() - query.total[row])
        assert torch.allclose(learner.predict(learner.adapt(support), query)[row], expected, atol=1e-9)


def test_only_the_nearest_neighbours_are_asked(explained: Explanations) -> None:
    """With one neighbour the literal form repeats the attributions of the most similar row."""
    learner = network(encoder=RawInputs(), similarity=CosineSimilarity(), values="attributions", neighbours=1)
    support = explained[:6]
    found = learner.propose(learner.adapt(support), support.evidence).attributions
    assert torch.allclose(found, support.attributions)


def test_a_callable_of_ones_own_compares(explained: Explanations) -> None:
    def equally(queries: Tensor, keys: Tensor) -> Tensor:
        return queries.new_zeros(*queries.shape[:-1], keys.shape[-2])

    learner = network(encoder=RawInputs(), similarity=equally, values="attributions")
    found = learner.propose(learner.adapt(explained[:6]), explained[6:].evidence).attributions
    assert torch.allclose(found, explained[:6].attributions.mean(0).expand(3, -1))
    with pytest.raises(ValueError, match="of your own"):
        learner.arguments()


def test_support_weights_are_shares_of_what_the_support_adds(explained: Explanations) -> None:
    learner, support, query = network(), explained[:6], explained[6:].evidence
    weights = learner.support_weights(support, query)
    assert weights.shape == (3, 6) and (weights >= 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones(3).double())
    shuffled = learner.support_weights(support[torch.tensor([2, 0, 1, 5, 4, 3])], query)
    assert torch.allclose(shuffled, weights[:, [2, 0, 1, 5, 4, 3]], atol=1e-6)
    nearest = network(encoder=RawInputs(), similarity=CosineSimilarity(), values="attributions", neighbours=1)
    assert torch.allclose(nearest.support_weights(support, support.evidence), torch.eye(6).double())


def test_rows_far_from_the_support_are_left_alone(explained: Explanations) -> None:
    learner = network(head="none")
    learner.threshold.fill_(50.0)
    query = explained[6:].evidence
    expected = learner.predict(learner.initial_state(), query)
    assert torch.allclose(learner.predict(learner.adapt(explained[:6]), query), expected)


def test_a_constant_model_has_nothing_to_explain(explained: Explanations) -> None:
    nothing = explained.evidence.map(lambda tensor: tensor * 0 if tensor.is_floating_point() else tensor)
    learner = network()
    state = learner.adapt(Explanations(nothing, 0 * explained.attributions))
    assert not learner.predict(state, nothing).any()
    found = learner.predict(state, explained.evidence)
    assert torch.allclose(found, learner.predict(None, explained.evidence), atol=1e-6)


def test_queries_may_have_other_players(explained: Explanations) -> None:
    """More players, fewer players: those that the support set has, in the same places, are corrected."""
    learner, query = network(), explained[6:].evidence
    n_players = query.players.shape[-1]
    fewer = explained[:6]
    dropped = torch.arange(n_players) < n_players - 1
    kept = replace(fewer.evidence, players=fewer.evidence.players & dropped, effects=fewer.evidence.effects)
    cut = Explanations(_cut(kept, n_players - 1), fewer.attributions[:, :-1])
    padded = Explanations(kept, torch.where(dropped, fewer.attributions, 0.0))
    one, other = (learner.predict(learner.adapt(support), query) for support in (cut, padded))
    assert torch.allclose(one, other, atol=1e-8)
    assert learner.predict(learner.adapt(fewer), _cut(query, n_players - 1)).isfinite().all()


def _cut(evidence, count: int):  # type: ignore[no-untyped-def]
    assert evidence.inputs is not None
    return replace(
        evidence,
        effects=evidence.effects[:, :count],
        measured=evidence.measured[:, :count],
        players=evidence.players[:, :count],
        inputs=evidence.inputs[:, :count],
    )


@pytest.mark.usefixtures("unchecked")
class TestBadInput:
    def test_an_empty_support_set(self, explained: Explanations) -> None:
        with pytest.raises(ValueError, match="support set is empty: pass at least one"):
            network().adapt(explained[:0])

    def test_attributions_of_the_wrong_shape(self, explained: Explanations) -> None:
        with pytest.raises(ValueError, match="attributions have the shape"):
            network().adapt(Explanations(explained.evidence, explained.attributions[:, :-1]))

    def test_attributions_that_are_not_finite(self, explained: Explanations) -> None:
        with pytest.raises(ValueError, match="not finite: leave these rows out"):
            network().adapt(Explanations(explained.evidence, explained.attributions * torch.nan))

    def test_other_players_than_the_literal_form_has(self, explained: Explanations) -> None:
        learner = network(encoder=InputEncoder(8), similarity=CosineSimilarity(), values="attributions")
        state = learner.adapt(explained[:6])
        with pytest.raises(ValueError, match=r"players and the query has .* adapt on such rows"):
            learner.predict(state, _cut(explained[6:].evidence, 2))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"values": "anything"}, '"residuals" or "attributions"'),
            ({"neighbours": 0}, "positive number"),
            ({"encoder": RawInputs(), "similarity": MLPSimilarity(4)}, "keys of one width"),
        ],
    )
    def test_arguments(self, arguments: dict[str, object], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            network(**arguments)


def test_before_it_is_adapted_the_literal_form_explains_zero_shot(explained: Explanations) -> None:
    learner = literal()
    found = learner.predict(learner.initial_state(), explained.evidence)
    assert torch.equal(found, learner.explainer(explained.evidence).attributions)


def test_the_loss_counts_harm_more_than_use(explained: Explanations) -> None:
    from captum_meta.types import ExplanationTask

    learner = network(head=ClosedFormHead(EvidenceEncoder(16)))
    task = ExplanationTask(explained[:6], explained[6:])
    right = task.query.attributions

    def error(values: Tensor) -> Tensor:
        return (values - right).square().sum() / right.square().sum()

    adapted = learner.predict(learner.adapt(task.support), task.query.evidence)
    before = learner.predict(learner.initial_state(), task.query.evidence)
    d = float(((error(adapted) + 5e-4) / (error(before) + 5e-4)).log())
    assert float(learner.loss(task)) == pytest.approx(d + 0.5 * max(d, 0.0))


def test_which_of_equally_similar_rows_are_nearest_is_not_left_to_rounding(explained: Explanations) -> None:
    def equally(queries: Tensor, keys: Tensor) -> Tensor:
        return 1e-15 * torch.randn(*queries.shape[:-1], keys.shape[-2], dtype=queries.dtype)

    learner = network(encoder=RawInputs(), similarity=equally, values="attributions", neighbours=2)
    found = learner.propose(learner.adapt(explained[:6]), explained[6:].evidence).attributions
    assert torch.allclose(found, explained[:6].attributions.mean(0).expand(3, -1))
