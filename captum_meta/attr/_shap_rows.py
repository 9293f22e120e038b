"""Converts rows of a table, as users of shap pass them, to numbers and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Columns = list[str]
_NUMBERS = "biuf"


class TableFormat:
    """The form in which the model takes its rows, and the contents of their columns.

    Inside, rows are numbers in double precision. A column that is not made of numbers, such as one of names, has the number
    of each of its values there; the model is given the values themselves.

    Args:
        background: ``(K, M)``, rows as the model takes them: a DataFrame, array, tensor or SciPy sparse matrix, one row
            ``(M,)``, shap's ``DenseData``, or its masker ``Independent``, behind which DataFrames stay DataFrames.
        model: a module is given tensors in its own precision and on its own device; a method of an estimator of
            scikit-learn that was fitted to a DataFrame with the background's columns is given such DataFrames.

    Attributes:
        rows: the background ``(K, M)``, as numbers.
        weights: ``(K,)`` of the rows, None for equal ones.
        names: of the columns, None where they have none.

    Raises:
        ValueError: if there are no rows of features.
    """

    def __init__(self, background: Any, model: Callable[..., Any]) -> None:
        self.weights: Tensor | None = None
        takes_frames = getattr(background, "output_dataframe", False)
        background = _rows_behind(background) if callable(background) else background
        weights = None if hasattr(background, "columns") else getattr(background, "weights", None)
        if weights is not None:
            _check_groups(background)
            background, self.weights = background.data, torch.as_tensor(np.asarray(weights))
        self.names = columns_of(background)
        module = isinstance(model, nn.Module)
        self._tensors, self._sparse = module or isinstance(background, Tensor), _is_sparse(background)
        like = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self._like = background if like is None and isinstance(background, Tensor) else like
        takes_frames |= self.names is not None and _names_known_to(model) == self.names
        self._frame = type(background) if takes_frames else None
        dtypes = background.dtypes.items() if takes_frames else ()
        self._categories = {name: dtype for name, dtype in dtypes if hasattr(dtype, "categories")}
        self._values: dict[int, dict[Any, tuple[int, Any]]] = {}
        array = _array(background)
        self._dtypes = _dtypes(array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(0, 0))
        self.rows = self.numbers(background, "background")
        self.rows = self.rows.unsqueeze(0) if self.rows.dim() == 1 else self.rows
        if self.rows.dim() != 2 or len(self.rows) == 0:
            raise ValueError(f"background has shape {tuple(self.rows.shape)}: pass rows of features, (K, M).")

    def numbers(self, rows: Any, name: str) -> Tensor:
        """Rows ``(n, M)`` or one row ``(M,)`` as numbers, float64.

        Raises:
            ValueError: for what is no number in a column that had numbers, for other numbers of columns, and the same in
                another order.
        """
        names = columns_of(rows)
        if names and self.names and names != self.names and set(names) == set(self.names):
            raise ValueError(f"{name} has the background's columns in another order, {names}: pass {name}[{self.names}].")
        if isinstance(rows, Tensor):
            return rows.detach().double()
        array = _array(rows)
        if array.dtype.kind in _NUMBERS and not self._named:
            return torch.as_tensor(np.array(array, dtype=np.float64))
        if not array.ndim or array.shape[-1] != len(self._dtypes):
            raise ValueError(f"{name} has shape {array.shape}: pass rows of {len(self._dtypes)} features.")
        columns = [self._encoded(array[..., index], index, name) for index in range(array.shape[-1])]
        return torch.as_tensor(np.stack(columns, axis=-1))

    def beside(self, rows: Any) -> TableFormat:
        """The same in a precision that fits these rows, too, so that a background of whole numbers does not round them."""
        array = _array(rows)
        if array.dtype.kind not in _NUMBERS or self._named:
            return self
        other = copy(self)
        other._dtypes = [np.result_type(dtype, array.dtype) for dtype in self._dtypes]
        return other

    @property
    def _named(self) -> bool:
        return any(dtype.kind not in _NUMBERS for dtype in self._dtypes)

    def _encoded(self, column: np.ndarray, index: int, name: str) -> np.ndarray:
        if self._dtypes[index].kind in _NUMBERS:
            try:
                return np.array(column, dtype=np.float64)
            except (TypeError, ValueError) as error:
                which = f"column {index}" if self.names is None else f"column {self.names[index]!r}"
                raise ValueError(f"{name} is not made of numbers in {which}, as the background is: {error}.") from error
        known = self._values.setdefault(index, {})
        codes = [known.setdefault(_key(value), (len(known), value))[0] for value in np.ravel(column)]
        return np.array(codes, dtype=np.float64).reshape(np.shape(column))

    def given(self, rows: Tensor) -> Any:
        """Rows of numbers ``(R, M)`` as the model takes them."""
        if self._tensors:
            return rows if self._like is None else rows.to(self._like)
        array = self._array_of(rows.cpu().numpy())
        if self._frame is not None:
            return self._frame(array, columns=self.names).infer_objects().astype(self._categories)
        return _sparse_matrix(array) if self._sparse else array

    def _array_of(self, array: np.ndarray) -> np.ndarray:
        if not self._named:
            return array.astype(np.result_type(*self._dtypes))
        table = np.empty(array.shape, dtype=object)
        for index, dtype in enumerate(self._dtypes):
            if dtype.kind in _NUMBERS:
                table[:, index] = array[:, index].astype(dtype)
            else:
                values = [value for _, value in self._values[index].values()]
                table[:, index] = [values[int(code)] for code in array[:, index]]
        return table


def _names_known_to(model: Callable[..., Any]) -> Columns | None:
    """Columns that an estimator of scikit-learn was fitted to, where the model is a method of one."""
    names = getattr(getattr(model, "__self__", None), "feature_names_in_", None)
    return None if names is None else list(names)


def columns_of(rows: Any) -> Columns | None:
    """Names of a DataFrame's columns."""
    return list(rows.columns) if hasattr(rows, "columns") else None


def shown(rows: Any) -> np.ndarray:
    """The rows as an explanation shows them."""
    return _array(rows)


def outputs_of(answer: Any) -> Tensor:
    """A model's answer as a tensor.

    Raises:
        ValueError: for what is not made of numbers.
    """
    if isinstance(answer, Tensor):
        return answer
    array = np.asarray(answer)
    if array.dtype.kind not in _NUMBERS:
        raise ValueError(
            f"The model gives values of type {array.dtype}, which are no numbers: pass a function that gives some, such as "
            "model.predict_proba."
        )
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def _rows_behind(masker: Any) -> Any:
    """The rows of a ``shap.maskers.Independent``, in the form in which it passes them on.

    Raises:
        TypeError: for other maskers, and functions.
    """
    if type(masker).__name__ != "Independent":
        raise TypeError(
            f"background is a {type(masker).__name__}, which does not put the values of background rows in the places of "
            "absent features: pass the rows, such as masker.data."
        )
    if not masker.output_dataframe:
        return masker.data
    import pandas

    return pandas.DataFrame(masker.data, columns=masker.feature_names)


def _array(rows: Any) -> np.ndarray:
    if isinstance(rows, Tensor):
        return np.asarray(rows.detach().cpu())
    return np.asarray(rows.toarray() if _is_sparse(rows) else rows)


def _dtypes(rows: np.ndarray) -> list[np.dtype[Any]]:
    """Of each column."""
    if rows.dtype.kind in _NUMBERS:
        return [rows.dtype] * rows.shape[1]
    return [np.array(rows[:, index].tolist()).dtype for index in range(rows.shape[1])]


def _is_sparse(rows: Any) -> bool:
    return hasattr(rows, "tocsr") and hasattr(rows, "toarray")


def _sparse_matrix(array: np.ndarray) -> Any:
    from scipy import sparse

    return sparse.csr_matrix(array)


def _key(value: Any) -> Any:
    """A key that equal values share, and missing values of one type."""
    differs = value != value
    return type(value) if not isinstance(differs, (bool, np.bool_)) or differs else value  # pandas.NA differs from nothing


def _check_groups(background: Any) -> None:
    groups: Sequence[Any] = getattr(background, "groups", None) or ()
    if any(len(group) != 1 for group in groups):
        raise ValueError(
            "background has groups of features: pass its rows alone, or the groups as feature_mask= to MetaKernelShap, "
            "with background=."
        )
