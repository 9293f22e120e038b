import pytest
import torch

from captum_meta.estimators import all_coalitions, path_nodes
from captum_meta.games import BatchedGames
from captum_meta.tasks import SyntheticTaskFamily, encoded_models, random_models
from captum_meta.tasks.augment import augment, drop_evidence
from captum_meta.tasks.batched_games import (
    long_integrated_gradients,
    path_explanations,
    shapley_explanations,
)
from captum_meta.tasks.synthetic import rightly_labelled
from captum_meta.types import Explanations


def small(kind: str) -> SyntheticTaskFamily:
    return SyntheticTaskFamily(kind, tasks_per_batch=2, rows=4, seed=3)  # type: ignore[arg-type]


def polynomial(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Two games of three players with two numbers each; the second is the double of the first."""
    value = x[..., 0, 0] * x[..., 1, 1] + x[..., 2, 0] ** 2 + x[..., 2, 1]
    return value * torch.tensor([[1.0], [2.0]])


def games() -> BatchedGames:
    x = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    return BatchedGames(polynomial, x, torch.zeros_like(x), has_gradient=True)


def test_a_batch_is_a_function_of_its_index() -> None:
    family, again = small("shapley"), small("shapley")
    again[1]
    assert torch.equal(family[2].attributions, again[2].attributions)
    assert not torch.equal(family[2].evidence.total, small("path")[1].evidence.total)


@pytest.mark.parametrize("index", range(6))
def test_shapley_labels_add_up(index: int) -> None:
    explained = small("shapley")[index]
    total, scale = explained.evidence.total, explained.attributions.abs().sum(-1)
    assert ((explained.attributions.sum(-1) - total).abs() <= 1e-4 * scale + 1e-5).all()


@pytest.mark.parametrize("seed", range(4))
def test_transformers_answer_as_if_every_token_went_through_all_layers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = random_models.Transformer(2, 5, 3, 2, generator)
    x = torch.randn(2, 4, 5, 3, generator=generator)

    def normed(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(values, values.shape[-1:])

    for task in range(2):
        tokens = x[task] @ model.embed[task, 0] + model.position[task]
        for layer in model.layers:
            (wqkv, bqkv), (wout, bout), (wup, bup), (wdown, bdown) = [(w[task], b[task]) for w, b in layer]
            q, k, v = (normed(tokens) @ wqkv + bqkv).unflatten(-1, (3, model.heads, -1)).unbind(-3)
            weights = (torch.einsum("rmhd,rnhd->rhmn", q, k) / q.shape[-1] ** 0.5).softmax(-1)
            tokens = tokens + torch.einsum("rhmn,rnhd->rmhd", weights, v).flatten(-2) @ wout + bout
            tokens = tokens + model.activation(normed(tokens) @ wup + bup) @ wdown + bdown
        read = tokens[:, 0] if model.first_token else tokens.mean(1)
        expected = normed(read) @ model.out[0][task] + model.out[1][task]
        assert torch.allclose(model(x)[task], expected, atol=1e-5)


def test_the_global_random_state_stands_still() -> None:
    state = torch.get_rng_state()
    small("shapley")[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_and_evidence_of_a_known_game() -> None:
    known = games()
    x = known.inputs
    explained = shapley_explanations(known, 0, seed=0)
    product = x[..., 0, 0] * x[..., 1, 1] * torch.tensor([[1.0], [2.0]])
    own = (x[..., 2, 0] ** 2 + x[..., 2, 1]) * torch.tensor([[1.0], [2.0]])
    expected = torch.stack([product / 2, product / 2, own], dim=-1)
    assert torch.allclose(explained.attributions, expected, atol=1e-5)
    effects = explained.evidence.effects
    assert torch.allclose(effects[..., 0, 3], product, atol=1e-5)
    assert torch.allclose(effects[..., 0, 4], torch.zeros(2, 4), atol=1e-5)
    assert torch.allclose(effects[..., 0, 1], product / 2, atol=1e-5)
    assert torch.allclose(long_integrated_gradients(known, each_number=False), expected, atol=1e-4)


def test_worths_are_those_of_single_evaluations() -> None:
    known = games()
    members = all_coalitions(3).expand(2, 4, 8, 3)
    worths = known.worths(members)
    for coalition in range(8):
        x = torch.where(members[:, :, coalition].unsqueeze(-1), known.inputs, known.baselines)
        assert torch.allclose(worths[:, :, coalition], polynomial(x, torch.arange(4)), atol=1e-6)


def test_encoders_read_positions_and_answer_with_cosines() -> None:
    x = torch.randn(2, 5, 4, 8, generator=torch.Generator().manual_seed(0))
    model = random_models.Encoder(2, 4, 8, 3, torch.Generator().manual_seed(1))
    outputs = model(x)
    assert outputs.shape == (2, 5, 3) and (outputs.abs() <= 1).all()
    assert not torch.allclose(model(x.flip(2)), outputs, atol=1e-3)
    model.position.zero_()
    assert torch.allclose(model(x.flip(2)), model(x), atol=1e-5)


def test_the_dual_of_the_dual_is_the_game() -> None:
    evidence = small("shapley")[5].evidence
    twice = evidence.reversed().reversed()
    assert torch.allclose(twice.effects, evidence.effects)
    assert torch.allclose(twice.curve, evidence.curve, atol=1e-5)
    assert twice.coalitions is not None and evidence.coalitions is not None
    assert torch.equal(twice.coalitions.members, evidence.coalitions.members)
    assert torch.allclose(twice.coalitions.worths, evidence.coalitions.worths, atol=1e-5)


def test_the_dual_is_what_swapping_input_and_baseline_measures() -> None:
    known = games()
    swapped = BatchedGames(known.function, known.baselines, known.inputs, known.has_gradient)
    one = shapley_explanations(known, 0, seed=0).evidence.reversed()
    other = shapley_explanations(swapped, 0, seed=0).evidence.times(torch.tensor([-1.0, -1.0]))
    assert torch.allclose(one.effects, other.effects, atol=1e-5)
    assert torch.allclose(one.total, other.total, atol=1e-5)


@pytest.mark.parametrize("n", [4, 17])
def test_walking_backwards_is_what_measuring_the_negative_from_input_to_baseline_gives(n: int) -> None:
    known = games()
    turned = BatchedGames(known.function, known.baselines, known.inputs, known.has_gradient)
    there = path_explanations(known, n, each_number=False, reference=None)
    back = there.evidence.reversed()
    assert torch.allclose(back.points, 1 - there.evidence.points.flip(-1))
    effects, values = turned.gradients(back.points)
    ends = turned.along(torch.tensor([0.0, 1.0]))
    assert torch.allclose(back.effects, -effects, atol=1e-5)
    assert torch.allclose(back.curve, ends[..., :1] - values, atol=1e-5)
    assert torch.allclose(back.total, ends[..., 0] - ends[..., 1], atol=1e-5)
    assert torch.allclose(there.attributions, -long_integrated_gradients(turned, each_number=False), atol=1e-5)


def test_paths_are_measured_at_nodes_of_each_rows_own() -> None:
    known = games()
    evidence = path_explanations(known, 4, each_number=False, reference=None).evidence
    values = known.along(torch.tensor([0.0, 0.5, 1.0]))
    for task in range(2):
        assert torch.allclose(evidence.points[task], path_nodes(values[task], 4).float())
        for row in range(4):
            for place, point in enumerate(evidence.points[task, row]):
                x = (point * known.inputs[:, row : row + 1]).requires_grad_()
                value = known.function(x, torch.tensor([row]))[task]
                gradient = torch.autograd.grad(value.sum(), x)[0][task, 0]
                expected = (gradient * known.inputs[task, row]).sum(-1)
                assert torch.allclose(evidence.effects[task, row, :, place], expected, atol=1e-5)
                assert torch.allclose(evidence.curve[task, row, place], value.squeeze(), atol=1e-5)


def test_a_row_whose_label_misses_the_change_of_f_gives_way_to_its_models_best() -> None:
    labels = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    totals = torch.tensor([[2.0, 2.1, 2.001], [0.9, 1.005, 2.001]])
    assert rightly_labelled(labels, totals).tolist() == [[0, 0, 2], [2, 1, 2]]


@pytest.mark.parametrize("index", range(6))
def test_path_labels_add_up(index: int) -> None:
    explained = small("path")[index]
    total, norm = explained.evidence.total, explained.attributions.norm(dim=-1)
    assert ((explained.attributions.sum(-1) - total).abs() <= 0.01 * norm + 1e-6).all()


def test_augmented_evidence_hides_what_it_drops() -> None:
    explained = small("shapley")[0]
    for seed in range(30):
        seen: Explanations = augment(explained, torch.Generator().manual_seed(seed))
        evidence = seen.evidence
        assert (evidence.effects[~evidence.measured] == 0).all()
        assert evidence.measured.flatten(1).any(1).all()


@pytest.mark.usefixtures("unchecked")
def test_kinds_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'paths': pass one of 'shapley', 'path'"):
        SyntheticTaskFamily("paths")  # type: ignore[arg-type]


ENCODED = (
    encoded_models.PiecewiseLinear,
    encoded_models.Stepped,
    encoded_models.Gated,
    encoded_models.LongMemory,
    encoded_models.AttentionPooling,
)


@pytest.mark.parametrize("architecture", ENCODED)
@pytest.mark.parametrize("width", [1, 8])
def test_models_as_libraries_build_them_answer_each_row_alone(
    architecture: type[random_models.BatchedModel], width: int
) -> None:
    x = torch.randn(2, 5, 4, width, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        model = architecture(2, 4, width, 3, torch.Generator().manual_seed(seed))  # type: ignore[call-arg, arg-type]
        outputs = model(x)
        assert outputs.shape == (2, 5, 3) and outputs.std() > 0
        assert torch.allclose(model(x[:, 1:3]), outputs[:, 1:3], atol=1e-5)
        random_models.train(model, x, torch.randn(2, 5, 3), True, 2, 0.01)
        assert not torch.equal(model(x), outputs)


def test_players_that_enter_by_steps_are_flat_and_keep_their_border() -> None:
    def stepped(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (x[..., 0, 0] > 0) + x[..., 1, 1] + x[..., 2, 0] ** 2

    explained = shapley_explanations(BatchedGames(stepped, games().inputs, games().baselines, True), 0, seed=0)
    assert explained.evidence.measured[..., :3].any(-1).flatten(0, 1).all(0).tolist() == [False, True, True]
    for seed in range(40):
        kept = drop_evidence(explained.evidence, torch.Generator().manual_seed(seed)).measured
        assert kept[..., 0, 3:].all() and kept.any(-1).all()
