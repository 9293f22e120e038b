"""Evidence of the path from baseline to input: gradients at its points, and f there."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.estimators import gauss_legendre, is_bent, path_nodes
from captum_meta.evidence.rows import player_inputs
from captum_meta.games import Game
from captum_meta.games.arguments import Outputs
from captum_meta.types import Evidence


def measure_path(
    game: Game, nodes: Float[Tensor, "*rows G"]
) -> tuple[Evidence, Float[Tensor, "N M G"], Float[Tensor, " N"]]:
    """Gradients at ``nodes`` (ascending in (0, 1)) of the path and f along it; every element is a player.

    Returns:
        Evidence ``(N, M, G)``, the gradients themselves, ``(N, M, G)``, and the larger size of f at both ends, ``(N,)``. G
        gradients and two forwards per row.

    Raises:
        AssertionError, RuntimeError: as :func:`path_gradients`.
    """
    gradients, values = path_gradients(game, nodes)
    ends = game.at(torch.tensor([0.0, 1.0])).squeeze(-1)
    return *path_evidence(game, nodes, gradients, values, ends), ends.abs().amax(1)


def measure_bent_path(game: Game, n: int) -> tuple[Evidence, Float[Tensor, "N M G"], Float[Tensor, " N"]]:
    """:func:`measure_path` at ``n`` nodes of each row's own (:func:`~captum_meta.estimators.path_nodes`).

    f halfway places them: one forward more. A single node, and more than 32, are the same for all rows.
    """
    # The input comes first: rows that act on each other are found where they differ.
    known = game.at(torch.tensor([1.0, 0.0, 0.5] if is_bent(n) else [1.0, 0.0]))
    check_output(game, known)
    known = known.squeeze(-1).roll(-1, dims=1)
    nodes = path_nodes(known, n) if is_bent(n) else gauss_legendre(n)[0]
    evidence, gradients = path_evidence(game, nodes, *path_gradients(game, nodes), known)
    return evidence, gradients, torch.maximum(known[:, 0].abs(), known[:, -1].abs())


def path_evidence(
    game: Game,
    nodes: Float[Tensor, "*rows G"],
    gradients: Float[Tensor, "N M G"],
    values: Float[Tensor, "N G"],
    known: Tensor,
) -> tuple[Evidence, Tensor]:
    """Evidence of gradients and f at the nodes, with f at the baseline first and at the input last of ``known``."""
    gradients, known_gradients = _lent(gradients)
    difference = game.difference.unsqueeze(-1)
    if not game.finite:
        known_gradients = known_gradients & difference.isfinite()
        difference = torch.where(difference.isfinite(), difference, 0.0)
    evidence = Evidence(
        effects=gradients * difference,
        measured=known_gradients.expand_as(gradients),
        players=game.mask,
        total=known[:, -1] - known[:, 0],
        curve=values - known[:, :1],
        points=nodes.to(values.device, torch.promote_types(values.dtype, torch.float32)).expand(len(values), -1),
        inputs=player_inputs(game),
    )
    return evidence, gradients


def _lent(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients ``(N, M, G)``, where the nearest finite ones replace others, and which are known then.

    The latter as ``(N, M, G)``, or where all are ``(N, M, 1)``.
    """
    if bool(gradients.sum().isfinite()):  # much cheaper than to ask all of them
        return gradients, torch.ones_like(gradients[..., :1], dtype=torch.bool)
    finite = gradients.isfinite()
    indices = torch.arange(gradients.shape[-1], device=gradients.device)
    distances = (indices.unsqueeze(-1) - indices).abs() + torch.where(finite, 0, len(indices)).unsqueeze(-2)
    nearest = distances.argmin(-1)
    known = finite.any(-1, keepdim=True).expand_as(gradients)
    return torch.where(known, gradients.gather(-1, nearest), 0.0), known


def path_gradients(
    game: Game, points: Float[Tensor, "*rows G"]
) -> tuple[Float[Tensor, "N elements G"], Float[Tensor, "N G"]]:
    """Gradients of the one selected output at points of the path ``(N, elements, G)``, and f there ``(N, G)``.

    Raises:
        AssertionError: if the model has several outputs and no target selects one, or one output for a whole batch.
        RuntimeError: if the model has no gradient.
    """
    gradients, values = measured_gradients(game, game.gradients(points))
    return gradients.squeeze(-1), values.squeeze(-1)


def own_gradients(game: Game) -> tuple[Float[Tensor, "N elements"], Float[Tensor, " N"]]:
    """Gradients of the one selected output at the inputs themselves ``(N, elements)``, and f there ``(N,)``.

    Raises:
        AssertionError, RuntimeError: as :func:`path_gradients`.
    """
    gradients, values = own_output_gradients(game)
    return gradients[..., 0], values[:, 0]


def own_output_gradients(game: Game) -> tuple[Float[Tensor, "N elements K"], Float[Tensor, "N K"]]:
    """Gradients of each of the outputs asked for at the inputs themselves ``(N, elements, K)``, and f there ``(N, K)``.

    Raises:
        AssertionError, RuntimeError: as :func:`path_gradients`.
    """
    gradients, values = measured_gradients(game, game.own_gradients())
    return gradients[..., 0, :], values[:, 0]


def measured_gradients(game: Game, measured: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Gradients of a game ``(N, elements, G, K)`` and f ``(N, G, K)``, where there are any.

    Raises:
        AssertionError, RuntimeError: as :func:`path_gradients`.
    """
    if measured is None:
        check_real(game.inputs)
        raise RuntimeError(
            "The explained model has no gradient with respect to its inputs, which path integrals are made of: "
            "use MetaKernelShap or MetaShapleyValueSampling, which need only its outputs."
        )
    check_output(game, measured[1])
    return measured


def check_real(inputs: tuple[Tensor, ...]) -> None:
    """Raises ``RuntimeError`` for complex inputs, of which there is no path integral here."""
    for part in inputs:
        if part.is_complex():
            raise RuntimeError(
                f"inputs are complex numbers ({part.dtype}), of which no path integral is made: pass "
                "torch.view_as_real(inputs) and a function that begins with torch.view_as_complex, or use MetaKernelShap or "
                "MetaShapleyValueSampling, whose players may be complex."
            )


def check_output(game: Game, values: Tensor) -> None:
    """That inputs are real, and the model gives one number for each, or the outputs asked for, ``values (N, G, K)``."""
    check_real(game.inputs)
    assert values.shape[-1] == 1 or isinstance(game.batch.target, Outputs), (
        "Target not provided when necessary, cannot take gradient with respect to multiple outputs: pass target=."
    )
    assert game.n_rows == game.n_examples, (
        "forward_func gives one number for the whole batch, but a path integral needs one for each example: "
        "return one entry for each example, or use MetaShapleyValueSampling."
    )
