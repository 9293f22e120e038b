"""Evidence of the path from baseline to input: gradients at its points, and f there."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre, is_bent, path_nodes
from captum_meta.evidence.rows import player_inputs
from captum_meta.games import Game
from captum_meta.types import Evidence


def measure_path(game: Game, nodes: Tensor) -> tuple[Evidence, Tensor]:
    """Gradients at ``nodes`` (ascending in (0, 1)) of the path and f along it; every element is a player.

    Returns:
        Evidence ``(N, M, G)`` and the gradients themselves, ``(N, M, G)``. G gradients and two forwards a row.

    Raises:
        AssertionError, RuntimeError: as :func:`path_slopes`.
    """
    slopes, values = path_slopes(game, nodes)
    return _path_evidence(game, nodes, slopes, values, game.at(torch.tensor([0.0, 1.0])).squeeze(-1))


def measure_bent_path(game: Game, n: int) -> tuple[Evidence, Tensor]:
    """:func:`measure_path` at ``n`` nodes of each row's own (:func:`~captum_meta.estimators.path_nodes`).

    f halfway places them: one forward more. A single node, and more than 32, are the same for all rows.
    """
    start = game.at(torch.zeros(1))
    _check_output(game, start)
    known = torch.cat([start, game.at(torch.tensor([0.5, 1.0] if is_bent(n) else [1.0]))], dim=1).squeeze(-1)
    nodes = path_nodes(known, n) if is_bent(n) else gauss_legendre(n)[0]
    return _path_evidence(game, nodes, *path_slopes(game, nodes), known)


def _path_evidence(game: Game, nodes: Tensor, slopes: Tensor, values: Tensor, known: Tensor) -> tuple[Evidence, Tensor]:
    """Evidence of gradients and f at the nodes, with f at the baseline first and at the input last of ``known``."""
    effects = slopes * game.difference.unsqueeze(-1)
    evidence = Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=game.mask,
        total=known[:, -1] - known[:, 0],
        curve=values - known[:, :1],
        points=nodes.to(values.device, torch.promote_types(values.dtype, torch.float32)).expand(len(values), -1),
        inputs=player_inputs(game),
    )
    return evidence, slopes


def path_slopes(game: Game, points: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the one selected output at points of the path ``(N, elements, G)``, and f there ``(N, G)``.

    Raises:
        AssertionError: if the model has several outputs and no target selects one, or one output for a whole batch.
        RuntimeError: if the model has no gradient.
    """
    measured = game.slopes(points)
    if measured is None:
        raise RuntimeError(
            "The explained model has no gradient with respect to its inputs, which path integrals are made of: "
            "use MetaKernelShap or MetaShapleyValueSampling, which need only its outputs."
        )
    slopes, values = measured
    _check_output(game, values)
    return slopes.squeeze(-1), values.squeeze(-1)


def _check_output(game: Game, values: Tensor) -> None:
    """That the model gives one number ``values (N, G, 1)`` for each example."""
    assert values.shape[-1] == 1, (
        "Target not provided when necessary, cannot take gradient with respect to multiple outputs: pass target=."
    )
    assert game.n_rows == game.n_examples, (
        "forward_func gives one number for the whole batch, but a path integral needs one for each example: "
        "return one entry for each example, or use MetaShapleyValueSampling."
    )
