"""Methods of queries that can be called on a table's class, as type checkers see them.

``Session.to_pandas()`` stands for ``Session().to_pandas()``: the metaclass of tables gives methods
bound to an instance. Type checkers do not follow that; the annotations here describe it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

if TYPE_CHECKING:

    class ClassMethod(Generic[P, R]):
        """A method that is bound both on a table and on its class."""

        def __get__(self, table: Any, cls: Any = None) -> Callable[P, R]: ...

    def on_class(method: Callable[Concatenate[Any, P], R]) -> ClassMethod[P, R]:
        """Tell type checkers that a method can be called on the class too."""
        ...

else:
    ClassMethod = Callable

    def on_class(method: Callable[..., R]) -> Callable[..., R]:
        """Tell type checkers that a method can be called on the class too."""
        return method
