"""Transfer by one Gaussian process over the rows of all models: its formula again, and what earlier models are worth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_meta.learners import TransferGaussianProcess, load_learner
from captum_meta.learners.storage import shipped_explainer
from captum_meta.losses import relative_errors
from captum_meta.tasks import ModelStream
from captum_meta.types import Explanations

K = 6


def explained(day: int) -> tuple[torch.nn.Module, Tensor]:
    """Versions of one model whose interactions gradients alone do not tell; the noise of retraining is small."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(4, 24, generator=generator), torch.randn(24, 1, generator=generator)
    noise = torch.Generator().manual_seed(day)
    weights = tuple(w + 0.02 * torch.randn(w.shape, generator=noise) for w in weights)  # type: ignore[assignment]

    class Version(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(2 * x @ weights[0]) @ weights[1]

    return Version(), torch.randn(60, 4, generator=noise)


@pytest.fixture(scope="module")
def days() -> list[Explanations]:
    stream = ModelStream(explained, 7, rows=36, coalitions=0)
    return [stream.variants(day)[0].to(dtype=torch.float64) for day in range(7)]


def learner(**arguments: float) -> TransferGaussianProcess:
    return TransferGaussianProcess(shipped_explainer(), **arguments).double().eval()


def error(learner: TransferGaussianProcess, rows: Explanations) -> float:
    predicted = learner.predict(learner.adapt(rows[:, :K]), rows.evidence)[:, K:]
    return float(relative_errors(predicted, rows.attributions[:, K:]))


def test_the_correction_is_the_posterior_mean_of_the_process(days: list[Explanations]) -> None:
    ours = learner()
    ours.condition_on(days[:2])
    today = days[2][0]
    numbers, residuals, tasks = [], [], []
    for number, (rows, known) in enumerate([(days[0][0], 36), (days[1][0], 36), (today, K)]):
        unit = rows.attributions[:known].square().mean().sqrt()
        answer = ours.explainer(rows.evidence).attributions
        far = answer.norm(dim=-1, keepdim=True) / (2 * unit * 2)
        answer = answer / far.clamp(min=1)
        delta = rows.evidence.inputs[..., 0] - rows.evidence.inputs[..., 1]  # type: ignore[index]
        total = (rows.evidence.total / 2).unsqueeze(-1).expand_as(answer)
        effects = rows.evidence.effects[..., :3] / 3**0.5
        sizes = torch.cat([torch.stack([answer, total], -1), effects], -1) * 2 / unit
        numbers.append(torch.cat([delta.unsqueeze(-1), sizes.asinh()], -1))
        residuals.append((rows.attributions - answer) / unit)
        tasks.append(torch.full((len(answer),), number))
    known = torch.arange(72 + K)
    z, r, t = torch.cat(numbers), torch.cat(residuals), torch.cat(tasks)
    z[..., 0] = (z[..., 0] / z[known, :, 0].std(0, correction=0)).clamp(-5, 5)
    distances = (z.unsqueeze(0) - z.unsqueeze(1)).square().sum(-1).mean(-1)
    kernel = (1 + distances / (2 * 0.5 * 1.5**2)) ** -0.5 * torch.where(t.unsqueeze(0) == t.unsqueeze(1), 1.0, 0.98)

    state = ours.adapt(today[:K])
    means = []
    for noise in (0.01, 0.03, 0.1, 0.3):
        covariance = kernel[: 72 + K, : 72 + K] + noise * torch.eye(72 + K)
        means.append(kernel[72 + K :, : 72 + K] @ torch.linalg.solve(covariance, r[: 72 + K]))
    base, unit = numbers[2][K:, :, 1].sinh() / 2, state.unit
    found = ours.propose(state, today[K:].evidence).attributions / unit - base
    within = found.norm(dim=-1) < 0.999 * state.reach
    assert within.sum() > 20
    shares = [(found * mean)[within].sum() / mean[within].square().sum() for mean in means]
    assert any(
        torch.allclose(found[within], share * mean[within], rtol=1e-5, atol=1e-8) and 0 < share <= 1 + 1e-9
        for share, mean in zip(shares, means, strict=True)
    )


def test_left_out_rows_are_fitted_without_the_row(days: list[Explanations]) -> None:
    from captum_meta.learners.transfer_process import fit

    generator = torch.Generator().manual_seed(0)
    root = torch.randn(9, 12, generator=generator, dtype=torch.float64)
    known, residual = root @ root.T, torch.randn(9, 3, generator=generator, dtype=torch.float64)
    noise = torch.rand(9, generator=generator, dtype=torch.float64) + 0.1
    _, left_out = fit(known, residual, noise, 5)
    for row in range(5, 9):
        others = torch.tensor([i for i in range(9) if i != row])
        covariance = known[others][:, others] + noise[others].diag()
        expected = known[row, others] @ torch.linalg.solve(covariance, residual[others])
        assert torch.allclose(left_out[row - 5], expected, rtol=1e-8)


def test_earlier_versions_of_a_model_explain_the_next(days: list[Explanations]) -> None:
    alone, followed = learner(), learner()
    followed.condition_on(days[:6])
    assert error(followed, days[6]) < 0.75 * error(alone, days[6])


def test_models_that_mislead_are_not_believed(days: list[Explanations]) -> None:
    plain, misled = load_learner("zero-shot").double(), learner()
    wrong = [replace(day, attributions=-3 * day.attributions.roll(1, -2)) for day in days[:6]]
    misled.condition_on(wrong)
    rows = days[6]
    zero_shot = relative_errors(plain.predict(None, rows.evidence)[:, K:], rows.attributions[:, K:])
    assert error(misled, rows) < 1.1 * float(zero_shot)


def test_the_units_of_the_output_do_not_matter(days: list[Explanations]) -> None:
    def times(rows: Explanations, factor: float) -> Explanations:
        e = rows.evidence
        e = replace(e, effects=factor * e.effects, total=factor * e.total, curve=factor * e.curve)
        return replace(rows, attributions=factor * rows.attributions, evidence=e)

    one, other = learner(), learner()
    one.condition_on(days[:2])
    other.condition_on([times(day, 100.0) for day in days[:2]])
    today = times(days[2], 0.01)
    expected = one.predict(one.adapt(days[2][:, :K]), days[2].evidence)
    assert torch.allclose(100 * other.predict(other.adapt(today[:, :K]), today.evidence), expected, rtol=1e-4, atol=1e-6)


def test_what_was_followed_is_saved(days: list[Explanations], tmp_path: Path) -> None:
    ours = learner()
    ours.condition_on(days[:2])
    ours.save(tmp_path / "mine")
    loaded = load_learner(tmp_path / "mine").double()
    assert error(loaded, days[2]) == pytest.approx(error(ours, days[2]), rel=1e-6)  # type: ignore[arg-type]


def test_another_day_may_have_other_features(days: list[Explanations]) -> None:
    ours = learner()
    ours.condition_on(days[:2])
    narrow = ModelStream(lambda day: (torch.nn.Linear(3, 1).double(), torch.randn(20, 3).double()), 1, rows=12, coalitions=0)
    rows = narrow.variants(0)[0].to(dtype=torch.float64)
    ours.condition_on([*days[:2], rows])
    for some in (rows, days[2]):
        predicted = ours.predict(ours.adapt(some[:, :K]), some.evidence)
        assert predicted.shape == some.attributions.shape and predicted.isfinite().all()
