"""Drop-in replacement for ``shap.KernelExplainer``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from captum_meta._model import module_of
from captum_meta.attr._arguments import check_whole, warn_of_train_mode
from captum_meta.attr._background import Link, explain_mean_game
from captum_meta.attr._pair_budgets import default_pairs
from captum_meta.attr._shap_rows import TableFormat, columns_of, outputs_of, shown
from captum_meta.export import imported
from captum_meta.games import MeanGame
from captum_meta.games.arguments import Outputs

if TYPE_CHECKING:
    import shap

_EPSILON = 1e-15
_MAX_NUMBERS = 2**25
_LINKS: dict[str, Link | None] = {
    "identity": None,
    "logit": lambda p: p.clamp(_EPSILON, 1 - _EPSILON).logit(),
}


class MetaShapExplainer:
    r"""Shapley values of tabular rows against a background, called as shap's explainers are.

    The game is shap's: :math:`v(S) = g(\frac 1 K \sum_k f(x_S, b_{k, \bar S}))` with the link g. ``shap.KernelExplainer``
    evaluates each coalition with all K background rows; here most of these pairs are predicted from the others
    (:mod:`captum_meta.estimators.input_process`). All outputs are explained from the same evaluations.

    Code written for ``shap.KernelExplainer`` runs with this class in its place: arguments have its names and positions, and
    :meth:`shap_values` and calls give what it gives. What differs: ``nsamples="auto"`` pays for fewer evaluations, values
    are not regularised, and columns that are not made of numbers are taken as they are.

    Args:
        model: a ``torch.nn.Module``, called with tensors; or a function, called with NumPy arrays such as scikit-learn's
            ``predict_proba``, or with tensors where the background is a tensor, or with SciPy's sparse matrices where it is
            one. A method of an estimator or pipeline that was fitted to a DataFrame with the background's columns is
            called with such DataFrames. Arrays have the precision of the rows. One entry or one row of outputs per row.
        data: the background ``(K, M)``, a DataFrame, array, tensor or sparse matrix, one row of it ``(M,)``, what
            ``shap.kmeans`` gives, or a ``shap.maskers.Independent``. Also called ``background``.
        feature_names: M names; by default the columns of a DataFrame.
        link: "identity" or "logit".
        keep_index: not supported: the model is given no index.
        seed: of the pairs drawn.

    Attributes:
        expected_value: the link of the mean output at the background; a float, or ``(O,)`` for models with several outputs.

    Reference: Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*, NeurIPS 2017.

    >>> explainer = MetaShapExplainer(lambda rows: rows[:, 0] + 2 * rows[:, 1], np.array([[0.0, 0.0], [2.0, 2.0]]))
    >>> explainer.expected_value, explainer.shap_values(np.array([[1.0, 2.0]])).round(3).tolist()
    (3.0, [[0.0, 2.0]])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        data: Any = None,
        feature_names: Sequence[str] | None = None,
        link: Any = "identity",
        *,
        background: Any = None,
        keep_index: bool = False,
        seed: int = 0,
    ) -> None:
        if not callable(model):
            raise TypeError(
                f"model is a {type(model).__name__}, which cannot be called: pass a function, such as model.predict_proba."
            )
        if (data is None) == (background is None):
            raise TypeError("Pass the background rows once: as the second argument, or as background=.")
        if isinstance(feature_names, str) or str(link) not in _LINKS:
            raise ValueError(f"link is {feature_names if str(link) in _LINKS else link!r}: pass link='identity' or 'logit'.")
        if keep_index:
            raise ValueError(
                "keep_index=True is not supported: pass a function that makes the DataFrame, such as "
                "lambda rows: model.predict(pandas.DataFrame(rows, columns=names))."
            )
        self.model, self.link, self.seed = model, str(link), seed
        self._table = TableFormat(background if data is None else data, model)
        self._names = self._table.names if feature_names is None else list(feature_names)
        warn_of_train_mode(self, model)
        every = torch.ones_like(self._table.rows[0], dtype=torch.bool)
        mean = self._start(self._game(self._table, self._table.rows[:1], every))
        self.expected_value = float(mean) if mean.ndim == 0 else mean

    def __call__(
        self,
        X: Any,
        l1_reg: Any = None,
        silent: bool = True,
        *,
        nsamples: int | str | None = "auto",
        gc_collect: bool = False,
    ) -> shap.Explanation:
        """Explain rows ``(n, M)`` as a ``shap.Explanation``, for shap's plots; one row ``(M,)`` counts as ``(1, M)``.

        Arguments and errors: :meth:`shap_values`.

        Raises:
            ImportError: if shap is not installed.
        """
        shap, began = imported("shap", "An Explanation"), time.monotonic()
        values, data, expected = self.shap_values(X, nsamples), shown(X), np.asarray(self.expected_value)
        if data.ndim == 1:
            values, data = values[None], data[None]
        return shap.Explanation(
            values,
            base_values=np.broadcast_to(expected, (len(values), *expected.shape)).copy(),
            data=data,
            feature_names=columns_of(X) or self._names,
            compute_time=time.monotonic() - began,
        )

    def shap_values(
        self,
        X: Any,
        nsamples: int | str | None = "auto",
        *,
        l1_reg: Any = None,
        silent: bool = True,
        gc_collect: bool = False,
    ) -> np.ndarray:
        """Shapley values of rows.

        Args:
            X: ``(n, M)``, or one row ``(M,)``: a DataFrame, Series, array, tensor or sparse matrix.
            nsamples: coalitions, each of which pays for K evaluations as with shap, spent on pairs of coalitions and
                background rows; exact from ``2**M - 2``, M being the features in which a row is not as the whole background.
                "auto" or None: all pairs where they are 2,048 at most, else 64M, at most 2,048.
            l1_reg, silent, gc_collect: taken and not needed; all features are told apart.

        Returns:
            ``(n, M)`` float64, or ``(n, M, O)`` where the model gives a row of outputs; without n for one row.

        Raises:
            TypeError: if ``nsamples`` is no whole number.
            ValueError: if the rows have not the background's columns, or ``nsamples`` is not positive.
        """
        table = self._table.beside(X)
        rows = table.numbers(X, "X")
        single = rows.dim() == 1
        rows = rows.unsqueeze(0) if single else rows
        background = self._table.rows
        if rows.shape[1:] != background.shape[1:]:
            raise ValueError(
                f"X has shape {tuple(rows.shape)}: pass rows of {background.shape[1]} features, as the background."
            )
        rows = rows.to(background.device)
        array = np.zeros((*rows.shape, max(1, np.size(self.expected_value))))
        for varying, some in _by_columns(rows, background):
            game = self._game(table, rows[some], varying)
            values, _ = explain_mean_game(game, _pairs(game, nsamples), None, False, self.seed, _LINKS[self.link])
            array[np.ix_(some.numpy(), varying.cpu().numpy())] = values.double().movedim(1, -1).cpu().numpy()
        array = array.reshape(*rows.shape, *np.shape(self.expected_value))
        return array[0] if single else array

    def _game(self, table: TableFormat, rows: Tensor, varying: Tensor) -> MeanGame:
        """The game of the columns ``varying (M,)``; in the others all rows equal the background."""
        rest = table.rows[:1]

        def forward(some: Tensor) -> Tensor:
            whole = rest.repeat(len(some), 1)
            whole[:, varying] = some
            return self._forward(table, whole)

        forward.__self__ = module_of(self.model)  # type: ignore[attr-defined]  # where the module behind it is looked for
        most = max(1, _MAX_NUMBERS // max(1, rows.shape[1]))
        behind = table.rows[:, varying]
        return MeanGame(forward, rows[:, varying], behind, Outputs(), max_rows=most, weights=table.weights)

    def _start(self, game: MeanGame) -> np.ndarray | np.floating[Any]:
        """The expected value; one number where the model gives one entry per row."""
        _, nobody = game.ends()
        mean = game.weights @ nobody[0].double()
        link = _LINKS[self.link]
        found = (mean if link is None else link(mean)).cpu().numpy()
        return found[0] if self._one_entry else found

    def _forward(self, table: TableFormat, rows: Tensor) -> Tensor:
        with torch.no_grad():
            output = outputs_of(self.model(table.given(rows)))
        if len(rows) == 1 and (output.dim() == 0 or (output.dim() == 1 and len(output) > 1)):
            output = output.unsqueeze(0)  # the model squeezed it
        self._one_entry = output.dim() == 1
        return output


def _pairs(game: MeanGame, nsamples: int | str | None) -> Tensor:
    """Pairs of each row, ``(N,)``."""
    if nsamples is None or (isinstance(nsamples, str) and nsamples == "auto"):
        return default_pairs(game)
    count = check_whole("nsamples", nsamples)
    if count < 1:
        raise ValueError(f"nsamples must be positive, got {count}: pass the number of coalitions, or 'auto'.")
    return torch.full((game.n_rows,), count * game.count)


def _by_columns(rows: Tensor, background: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups of rows ``(R,)`` by the columns ``(M,)`` bool in which they differ from some background row."""
    step = max(1, _MAX_NUMBERS // background.numel())
    parts = [(~_same(part.unsqueeze(1), background)).any(1) for part in rows.split(step)]
    patterns, which = torch.cat(parts).unique(dim=0, return_inverse=True)
    for index, varying in enumerate(patterns):
        if bool(varying.any()):
            yield varying, (which == index).nonzero().flatten().cpu()


def _same(one: Tensor, other: Tensor) -> Tensor:
    return (one == other) | (one.isnan() & other.isnan())
