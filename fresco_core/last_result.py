"""What was computed from a tensor last, for whoever asks again with the same one."""

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

_Result = TypeVar("_Result")


class LastResult(Generic[_Result]):
    """A function of one tensor that is called again and again with the same.

    The same is the same object: nobody may change it meanwhile, nor what the function depends on.
    """

    def __init__(self, function: Callable[[Tensor], _Result]) -> None:
        self._function = function
        self._input: weakref.ref[Tensor] | None = None
        self._result: _Result | None = None

    def __call__(self, tensor: Tensor) -> _Result:
        """What the function gives."""
        if self._result is None or self._input is None or self._input() is not tensor:
            self._result = self._function(tensor)
            self._input = weakref.ref(tensor)
        return self._result

    def forget(self) -> None:
        """What the function depends on has changed."""
        self._input = self._result = None
