"""What holds for every explainer, whatever its weights: the table of explainers drives all tests."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre, plan_coalitions
from captum_meta.nn import EvidenceExplainer, Explainer, PathExplainer, ShapleyExplainer
from captum_meta.nn.refinement import posterior_of
from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, SHAPLEY_POINTS, Coalitions, Evidence


def shapley_evidence(n_players: int = 6, inside: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    players = torch.ones(4, n_players, dtype=torch.bool)
    effects = torch.randn(4, n_players, 5, generator=generator)
    coalitions = None
    if inside:
        members, measured = plan_coalitions(players, 2 * n_players + inside, 0, torch.arange(4))
        coalitions = Coalitions(members, torch.randn(measured.shape, generator=generator), measured)
    total = torch.randn(4, generator=generator)
    return Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=players,
        total=total,
        curve=torch.stack([total, total / 3, torch.zeros(4)], dim=-1),
        points=torch.tensor(SHAPLEY_POINTS).expand(4, 3),
        coalitions=coalitions,
    )


def path_evidence(n_players: int = 6) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    nodes = gauss_legendre(4)[0].float()
    effects = torch.randn(4, n_players, 4, generator=generator)
    return Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=torch.ones(4, n_players, dtype=torch.bool),
        total=torch.randn(4, generator=generator),
        curve=torch.randn(4, 4, generator=generator),
        points=nodes.expand(4, 4),
    )


CASES = [
    pytest.param(ShapleyExplainer, shapley_evidence, id="shapley"),
    pytest.param(ShapleyExplainer, lambda: shapley_evidence(inside=10), id="shapley with coalitions inside"),
    pytest.param(PathExplainer, path_evidence, id="path"),
]
Make = Callable[[], Evidence]


def explainer(kind: type[Explainer]) -> Explainer:
    """Random weights everywhere, so that nothing holds only because a head is zero."""
    torch.manual_seed(0)
    network = kind(width=16, depth=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double()


def explain(network: Explainer, evidence: Evidence) -> Tensor:
    return network(evidence.to(dtype=torch.float64)).attributions


def permuted(evidence: Evidence, order: Tensor) -> Evidence:
    coalitions = evidence.coalitions and replace(evidence.coalitions, members=evidence.coalitions.members[..., order])
    return replace(
        evidence,
        effects=evidence.effects[:, order],
        measured=evidence.measured[:, order],
        players=evidence.players[:, order],
        coalitions=coalitions,
    )


def padded(evidence: Evidence) -> Evidence:
    """Two more players that are not there, with nonsense in their places."""

    def pad(tensor: Tensor, dim: int, value: object) -> Tensor:
        shape = list(tensor.shape)
        shape[dim] = 2
        return torch.cat([tensor, torch.full(shape, value, dtype=tensor.dtype)], dim)  # type: ignore[call-overload]

    coalitions = evidence.coalitions
    return replace(
        evidence,
        effects=pad(evidence.effects, 1, float("nan")),
        measured=pad(evidence.measured, 1, False),
        players=pad(evidence.players, 1, False),
        coalitions=coalitions and replace(coalitions, members=pad(coalitions.members, 2, True)),
    )


@pytest.mark.parametrize(("kind", "make"), CASES)
class TestInvariants:
    def test_efficiency(self, kind: type[Explainer], make: Make) -> None:
        evidence = make()
        assert torch.allclose(explain(explainer(kind), evidence).sum(-1), evidence.total.double(), atol=1e-6)

    def test_the_layers_that_read_hidden_units_do_not_make_them(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make().to(dtype=torch.float64)
        prior, hidden = network.prior(evidence), network.hidden(evidence)
        again = network.prior(evidence, hidden)
        assert all(torch.equal(value, vars(again)[name]) for name, value in vars(prior).items() if value is not None)
        readers = [p for name, p in network.named_parameters() if any(fnmatchcase(name, each) for each in network.reading)]
        for parameter in readers:
            parameter.data.fill_(torch.nan)
        assert readers
        assert torch.equal(network.hidden(evidence), hidden)
        assert network.prior(evidence, hidden).attributions.isnan().all()

    def test_the_gap_is_what_the_correction_spread(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make().to(dtype=torch.float64)
        raw = network.prior(evidence).attributions.sum(-1)
        assert torch.allclose(network(evidence).gap, raw - evidence.total)

    def test_order_of_players_does_not_matter(self, kind: type[Explainer], make: Make) -> None:
        network, evidence, order = explainer(kind), make(), torch.tensor([3, 1, 5, 0, 2, 4])
        expected = explain(network, evidence)[:, order]
        assert torch.allclose(explain(network, permuted(evidence, order)), expected, atol=1e-6)

    def test_scaling_the_output_scales_the_attributions(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make().to(dtype=torch.float64)
        coalitions = evidence.coalitions and replace(evidence.coalitions, worths=evidence.coalitions.worths * 1e-4)
        scaled = replace(
            evidence,
            effects=evidence.effects * 1e-4,
            total=evidence.total * 1e-4,
            curve=evidence.curve * 1e-4,
            coalitions=coalitions,
        )
        assert torch.allclose(explain(network, scaled) * 1e4, explain(network, evidence), atol=1e-5)

    def test_padding_does_not_matter(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make()
        values = explain(network, padded(evidence))
        assert (values[:, 6:] == 0).all()
        assert torch.allclose(values[:, :6], explain(network, evidence), atol=1e-6)

    def test_rows_are_independent_and_nan_stays_in_its_row(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make()
        expected = explain(network, evidence[1:])
        broken = torch.arange(4) == 0

        def spoil(tensor: Tensor) -> Tensor:
            mask = broken.reshape(-1, *[1] * (tensor.dim() - 1))
            return tensor.masked_fill(mask, torch.nan) if tensor.is_floating_point() else tensor

        coalitions = evidence.coalitions and evidence.coalitions.map(spoil)
        spoilt = replace(evidence, effects=spoil(evidence.effects), total=spoil(evidence.total), coalitions=coalitions)
        values = explain(network, spoilt)
        assert values[0].isnan().all()
        assert torch.allclose(values[1:], expected, atol=1e-9)

    def test_a_player_without_effect_gets_nothing(self, kind: type[Explainer], make: Make) -> None:
        evidence = make()
        effects = evidence.effects.clone()
        effects[:, 2] = 0
        coalitions = evidence.coalitions
        if coalitions is not None:
            worths = (coalitions.members.float() @ torch.tensor([1.0, 2.0, 0.0, -1.0, 0.5, 3.0])).square()
            coalitions = replace(coalitions, worths=worths)
        values = explain(explainer(kind), replace(evidence, effects=effects, coalitions=coalitions))
        assert (values[:, 2].abs() < 1e-9).all()

    def test_leading_task_dimensions(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make()
        tasks = evidence.map(lambda tensor: tensor.unflatten(0, (2, 2)))
        assert torch.allclose(explain(network, tasks).flatten(0, 1), explain(network, evidence), atol=1e-9)

    def test_differentiable_twice(self, kind: type[Explainer], make: Make) -> None:
        network, evidence = explainer(kind), make().to(dtype=torch.float64)
        parameters = list(network.parameters())
        loss = network(evidence).attributions.square().sum()
        first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        norm = sum(grad.square().sum() for grad in first if grad is not None)
        second = torch.autograd.grad(norm, parameters, allow_unused=True)  # type: ignore[arg-type]
        assert all(grad.isfinite().all() for grad in second if grad is not None)

    def test_nothing_measured_is_shared_evenly(self, kind: type[Explainer], make: Make) -> None:
        evidence = make()
        nothing = replace(
            evidence,
            effects=torch.zeros_like(evidence.effects),
            measured=torch.zeros_like(evidence.measured) if kind is ShapleyExplainer else evidence.measured,
            curve=torch.zeros_like(evidence.curve),
            coalitions=None,
        )
        values = explain(explainer(kind), nothing)
        assert torch.allclose(values, (evidence.total / 6).double().unsqueeze(-1).expand(4, 6), atol=1e-6)


def test_every_subset_of_channels_can_be_read() -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence()
    for kept in ([0], [0, 2], [0, 1, 2], [3], [3, 4], [0, 1, 2, 3, 4]):
        measured = torch.zeros_like(evidence.measured)
        measured[..., kept] = True
        partly = replace(evidence, measured=measured, effects=torch.where(measured, evidence.effects, torch.nan))
        assert explain(network, partly).isfinite().all()


def test_quadrature_that_leaves_no_error_is_not_corrected() -> None:
    """f is a polynomial that four nodes integrate exactly, so all weights must give Gauss-Legendre's answer."""
    nodes, weights = gauss_legendre(4)
    slope = torch.tensor([1.0, -2.0, 0.5]).double()
    power = torch.tensor([1, 2, 3])
    effects = (slope * power * nodes.unsqueeze(-1) ** (power - 1)).T.unsqueeze(0)
    evidence = Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=torch.ones(1, 3, dtype=torch.bool),
        total=slope.sum().unsqueeze(0),
        curve=(slope * nodes.unsqueeze(-1) ** power).sum(-1).unsqueeze(0),
        points=nodes.unsqueeze(0),
    )
    values = explain(explainer(PathExplainer), evidence)
    assert torch.allclose(values, effects @ weights, atol=1e-6)
    assert torch.allclose(values, slope.unsqueeze(0), atol=1e-6)


def test_players_that_share_one_curve_share_its_error_before_any_training() -> None:
    """f is a function of one weighted sum: its error at three nodes is large, but whose it is the gradients tell."""
    weights, nodes = torch.tensor([3.0, 0.5, 1.5, 0.0]).double(), gauss_legendre(3)[0]

    def curve(points: Tensor) -> Tensor:
        return torch.sigmoid(40 * (points - 0.3))

    gradients = 40 * curve(nodes) * (1 - curve(nodes))
    ends = curve(torch.tensor([0.0, 1.0]).double())
    effects = (weights.unsqueeze(-1) * gradients / weights.sum()).unsqueeze(0)
    evidence = Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=torch.ones(1, 4, dtype=torch.bool),
        total=(ends[1] - ends[0]).unsqueeze(0),
        curve=(curve(nodes) - ends[0]).unsqueeze(0),
        points=nodes.unsqueeze(0),
    )
    right = weights / weights.sum() * evidence.total
    assert (effects @ gauss_legendre(3)[1] - right).abs().max() > 0.1
    assert torch.allclose(PathExplainer(16, 1).double()(evidence).attributions, right.unsqueeze(0), atol=1e-9)


@pytest.mark.parametrize(("apart", "matters"), [(-60.0, False), (60.0, True)])
def test_the_gate_chooses_between_the_whole_gap_and_that_of_each_interval(apart: float, matters: bool) -> None:
    """Where only the gap of the whole path is shared out, f at the nodes does not matter."""
    torch.manual_seed(0)
    network, evidence = PathExplainer(16, 1).double(), path_evidence().to(dtype=torch.float64)
    with torch.no_grad():
        network.head.bias[3] = 1.0  # shares by the gradients' jumps
        network.whole.bias[0] = apart
    moved = replace(evidence, curve=evidence.curve + 0.1)
    assert torch.allclose(explain(network, moved), explain(network, evidence), atol=1e-9) != matters


def test_error_numbers_are_distances_from_other_answers() -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence(inside=10).to(dtype=torch.float64)
    assert isinstance(network, ShapleyExplainer) and evidence.coalitions is not None
    prior = network.prior(evidence)
    answer, players, rows = network.numbered(prior, evidence)
    values = network.complete(prior, evidence).attributions
    assert torch.equal(answer.attributions, values)
    size = values.square().mean(-1, keepdim=True)
    gradients = torch.tensor([True, True, True, False, False]).expand_as(evidence.measured)
    alone = network(replace(evidence, measured=gradients, coalitions=None)).attributions
    before = Explainer.complete(network, prior, evidence).attributions
    posterior = posterior_of(prior, before, evidence)
    unit = prior.scale.unsqueeze(-1)
    half = posterior.shapley_values_of_half() * unit
    negative = replace(evidence, effects=-evidence.effects, total=-evidence.total, curve=-evidence.curve, coalitions=None)
    opposite = posterior.shapley_values_from(-network(negative).attributions / unit) * unit
    border = evidence.effects[..., 3] - evidence.effects[..., 4]
    distances = {1: values, 2: alone - values, 3: half - values, 4: opposite - values, 5: before - values, 6: border}
    for place, difference in distances.items():
        relative = difference.square() / size
        assert torch.allclose(players[..., place], (relative + 1e-12).log())
        assert torch.allclose(rows[:, place], (relative.mean(-1) + 1e-12).log())
    missed = (evidence.effects.sum(-2) - evidence.total.unsqueeze(-1)) / 6
    assert torch.allclose(rows[:, 14:19], (missed.square() / size + 1e-12).log())
    assert torch.allclose(rows[:, 20:22], (posterior.late_surprises() + 1e-12).log())
    counts = torch.tensor([32 / 11, 6.0, 11 / 6]).double().log()
    assert torch.allclose(rows[:, 22:], torch.cat([torch.ones(2).double(), counts]).expand(len(rows), 5))


def test_an_answer_with_its_error_is_the_answer_and_its_error() -> None:
    network = explainer(ShapleyExplainer)
    for inside in (0, 10, 50):  # the border alone, more, all
        evidence = shapley_evidence(inside=inside).to(dtype=torch.float64)
        prior = network.prior(evidence)
        prediction, estimate = network.complete_with_error(prior, evidence)
        assert torch.equal(prediction.attributions, network.complete(prior, evidence).attributions)
        assert torch.allclose(estimate, network.estimate_error(prior, evidence, prediction.attributions))
        assert bool((estimate == 0).all()) == (inside == 50)


def test_where_nothing_acts_the_error_is_not_said_to_be_small() -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence(inside=10).to(dtype=torch.float64)
    silent = evidence.times(torch.zeros_like(evidence.total))
    _, estimate = network.complete_with_error(network.prior(silent), silent)
    assert estimate.isinf().all()


def test_error_estimates_know_neither_the_players_order_nor_the_outputs_unit() -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence(inside=10).to(dtype=torch.float64)

    def estimate(evidence: Evidence) -> Tensor:
        prior = network.prior(evidence)
        return network.estimate_error(prior, evidence, network.complete(prior, evidence).attributions)

    found = estimate(evidence)
    assert (found > 0).all()
    assert torch.allclose(estimate(permuted(evidence, torch.tensor([3, 1, 5, 0, 2, 4]))), found, rtol=1e-4)
    assert evidence.coalitions is not None
    coalitions = replace(evidence.coalitions, worths=100 * evidence.coalitions.worths)
    scaled = replace(
        evidence,
        effects=100 * evidence.effects,
        total=100 * evidence.total,
        curve=100 * evidence.curve,
        coalitions=coalitions,
    )
    assert torch.allclose(estimate(scaled), found, rtol=1e-4)


def test_what_further_coalitions_say_differently_is_explained_by_kernelshap(monkeypatch: pytest.MonkeyPatch) -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence(6, 16).to(dtype=torch.float64)
    coalitions = evidence.coalitions
    assert coalitions is not None and coalitions.members.shape[-2] == 28
    first = Coalitions(coalitions.members[:, :20], coalitions.worths[:, :20], coalitions.measured[:, :20])
    before = explain(network, replace(evidence, coalitions=first))
    monkeypatch.setattr("captum_meta.nn.refinement.MAX_POSTERIOR", 20)
    after = explain(network, evidence)
    with torch.no_grad():
        prior = network.prior(evidence)
        posterior = posterior_of(
            prior, Explainer.complete(network, prior, evidence).attributions, replace(evidence, coalitions=first)
        )
        expected = posterior.differences(coalitions.members) * prior.scale.unsqueeze(-1)
    for row, members in enumerate(coalitions.members):
        pairs = coalitions.worths[row].unflatten(0, (-1, 2))
        missed = ((pairs - pairs.flip(-1)).flatten() - expected[row]) / 2
        sizes = members.sum(-1)
        weights = torch.stack([5 / (s * (6 - s)) / (sizes == s).sum() for s in sizes]).double()
        design = members.double()
        gram = design.T @ (weights.unsqueeze(-1) * design)
        ones = torch.ones(6, 1).double()
        system = torch.cat([torch.cat([gram, ones], 1), torch.cat([ones.T, torch.zeros(1, 1).double()], 1)])
        right = torch.cat([design.T @ (weights * missed), torch.zeros(1).double()])
        change = torch.linalg.solve(system, right)[:6]
        assert change.norm() > 1e-3 * before[row].norm()
        assert torch.allclose((after - before)[row].double(), change, atol=1e-4 * float(before[row].norm()))


def test_an_explainer_without_hidden_units_says_so() -> None:
    with pytest.raises(NotImplementedError, match="EvidenceExplainer does not tell"):
        EvidenceExplainer().hidden(shapley_evidence())


def test_effects_that_are_next_to_nothing_beside_the_worths_inside_give_no_unit() -> None:
    network, evidence = explainer(ShapleyExplainer), shapley_evidence(inside=10)
    found = []
    for size in (1e-15, 1e-30):
        small = replace(evidence.times(torch.full((4,), size)), coalitions=evidence.coalitions)
        found.append(network.float()(small).attributions)
    assert found[0].isfinite().all() and found[0].abs().amax() > 0.1
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("border", [False, True])
def test_a_game_of_pairs_is_exact_from_gradients_or_the_border_whatever_the_weights(border: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, pairs = torch.rand(4, 40, generator=generator), torch.randn(40, 40, generator=generator) / 40
    pull = x @ (pairs + pairs.T)  # of f(x) = sum(x) + x' pairs x
    effects = torch.zeros(4, 40, 5)
    effects[..., :3] = torch.stack([x * (1 + t * pull) for t in SHAPLEY_POINTS], dim=-1)
    measured = torch.arange(5).expand(4, 40, 5) < (5 if border else LEAVE_ONE_OUT)
    shapley = x * (1 + pull / 2)
    own = x.square() * pairs.diag()
    if border:
        effects[..., LEAVE_ONE_OUT], effects[..., ADD_ONE_IN] = x * (1 + pull) - own, x + own

    evidence = replace(shapley_evidence(40), effects=effects, measured=measured, total=shapley.sum(1))
    explainer = ShapleyExplainer(8)
    with torch.no_grad():
        for parameter in explainer.parameters():
            parameter.normal_(generator=generator)
    torch.testing.assert_close(explainer(evidence).attributions, shapley, rtol=1e-4, atol=1e-5)
    if border:  # a sum over players, whatever its gradients are
        torch.testing.assert_close(
            explainer(
                replace(
                    evidence,
                    effects=torch.cat([effects[..., :LEAVE_ONE_OUT].square(), x.unsqueeze(-1).expand(4, 40, 2)], dim=-1),
                    total=x.sum(1),
                )
            ).attributions,
            x,
            rtol=1e-4,
            atol=1e-5,
        )
