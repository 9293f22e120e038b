"""Drop-in replacement for ``shap.KernelExplainer``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_meta.attr._arguments import check_whole
from captum_meta.attr._background import Link, default_pairs, explain_mean_game
from captum_meta.export import imported_shap
from captum_meta.games import MeanGame
from captum_meta.games.arguments import Outputs

if TYPE_CHECKING:
    import shap

_EPSILON = 1e-15
_LINKS: dict[str, Link | None] = {
    "identity": None,
    "logit": lambda p: p.clamp(_EPSILON, 1 - _EPSILON).logit(),
}


class MetaShapExplainer:
    r"""Shapley values of tabular rows against a background, called as shap's explainers are.

    The game is shap's: :math:`v(S) = g(\frac 1 K \sum_k f(x_S, b_{k, \bar S}))` with the link g. ``shap.KernelExplainer``
    evaluates each coalition with all K background rows; here most of these pairs are told from the others
    (:mod:`captum_meta.estimators.input_process`). All outputs are explained from the same evaluations.

    Args:
        model: a ``torch.nn.Module``, called with tensors; or a function, called with NumPy arrays such as scikit-learn's
            ``predict_proba``, or with tensors where the background is a tensor. One entry or one row of outputs per row.
        background: ``(K, M)``, a DataFrame, array or tensor, or what ``shap.kmeans`` gives.
        link: "identity" or "logit".
        feature_names: M names; by default the columns of a DataFrame.
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
        background: Any,
        link: str = "identity",
        feature_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if not callable(model):
            raise TypeError(
                f"model is a {type(model).__name__}, which cannot be called: pass a function, such as model.predict_proba."
            )
        if link not in _LINKS:
            raise ValueError(f"link is {link!r}: pass 'identity' or 'logit'.")
        self.model, self.link, self.seed = model, link, seed
        weights = getattr(background, "weights", None)
        rows = background if weights is None else background.data
        self._names = list(feature_names) if feature_names is not None else _columns(background)
        self._takes_tensors = isinstance(model, nn.Module) or isinstance(rows, Tensor)
        self.background = self._tensor(rows, "background")
        self._weights = None if weights is None else torch.as_tensor(np.asarray(weights))
        if self.background.dim() != 2 or len(self.background) == 0:
            raise ValueError(f"background has shape {tuple(self.background.shape)}: pass rows of features, (K, M).")
        mean = self._start(self._game(self.background[:1]))
        self.expected_value = float(mean) if mean.ndim == 0 else mean

    def __call__(self, X: Any, nsamples: int | str | None = "auto", **options: Any) -> shap.Explanation:
        """Explain rows ``(n, M)`` as a ``shap.Explanation``, for shap's plots.

        Arguments and errors: :meth:`shap_values`.

        Raises:
            ImportError: if shap is not installed.
        """
        shap, began = imported_shap("An Explanation"), time.monotonic()
        values = self.shap_values(X, nsamples, **options)
        tiled = np.broadcast_to(self.expected_value, (len(values), *np.shape(self.expected_value))).copy()
        return shap.Explanation(
            values,
            base_values=tiled,
            data=_array(X),
            feature_names=_columns(X) or self._names,
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
            X: ``(n, M)``, or one row ``(M,)``: a DataFrame, Series, array or tensor.
            nsamples: coalitions, each of which pays for K evaluations as with shap, spent on pairs of coalitions and
                background rows; exact from ``2**M - 2``. "auto" or None: 64M pairs, at most 2,048.
            l1_reg, silent, gc_collect: taken and not needed; all features are told apart.

        Returns:
            ``(n, M)`` float64, or ``(n, M, O)`` where the model gives a row of outputs; without n for one row.

        Raises:
            TypeError: if ``nsamples`` is no whole number.
            ValueError: if the rows are not of M numbers, or ``nsamples`` is not positive.
        """
        rows = self._tensor(X, "X")
        single = rows.dim() == 1
        rows = rows.unsqueeze(0) if single else rows
        if rows.shape[1:] != self.background.shape[1:]:
            raise ValueError(
                f"X has shape {tuple(rows.shape)}: pass rows of {self.background.shape[1]} features, as the background."
            )
        game = self._game(rows)
        if nsamples is None or nsamples == "auto":
            budgets = default_pairs(game)
        else:
            count = check_whole("nsamples", nsamples)
            if count < 1:
                raise ValueError(f"nsamples must be positive, got {count}: pass the number of coalitions, or 'auto'.")
            budgets = torch.full((len(rows),), count * game.count)
        values, _ = explain_mean_game(game, budgets, None, False, self.seed, _LINKS[self.link])
        array = values.double().movedim(1, -1).cpu().numpy()
        array = array.reshape(*array.shape[:-1], *np.shape(self.expected_value))
        return array[0] if single else array

    def _game(self, rows: Tensor) -> MeanGame:
        return MeanGame(self._forward, rows, self.background, Outputs(), weights=self._weights)

    def _start(self, game: MeanGame) -> np.ndarray:
        """The expected value; one number where the model gives one entry per row."""
        _, nobody = game.ends()
        mean = game.weights @ nobody[0].double()
        link = _LINKS[self.link]
        found = (mean if link is None else link(mean)).cpu().numpy()
        return found[0] if self._one_entry else found

    def _forward(self, rows: Tensor) -> Tensor:
        output = self.model(rows if self._takes_tensors else rows.numpy())
        output = output if isinstance(output, Tensor) else torch.as_tensor(np.asarray(output))
        self._one_entry = output.dim() == 1
        return output

    def _tensor(self, rows: Any, name: str) -> Tensor:
        """Rows as the model takes them: in the precision and on the device of a module, else in double precision."""
        if isinstance(rows, Tensor):
            return rows.detach()
        try:
            tensor = torch.as_tensor(np.array(rows, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is not made of numbers ({error}): encode its columns as numbers.") from error
        own = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        return tensor if own is None else tensor.to(own)


def _columns(rows: Any) -> list[str] | None:
    return list(rows.columns) if hasattr(rows, "columns") else None


def _array(rows: Any) -> np.ndarray:
    array: np.ndarray = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    return array
