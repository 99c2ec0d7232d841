"""Methods and properties that can be asked of a table's class, as type checkers see them.

``Session.to_pandas()`` stands for ``Session().to_pandas()``: the metaclass of tables gives methods
and properties of an instance. Type checkers do not follow that; the annotations here describe it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

if TYPE_CHECKING:

    class ClassMethod(Generic[P, R]):
        """A method that is bound both on a table and on its class."""

        def __get__(self, table: object, cls: type | None = None) -> Callable[P, R]: ...

    class ClassProperty(Generic[R]):
        """A property both of a table and of its class."""

        def __get__(self, table: object, cls: type | None = None) -> R: ...

    def on_class(method: Callable[Concatenate[Any, P], R]) -> ClassMethod[P, R]:
        """Tell type checkers that a method can be called on the class too."""
        ...

    def property_on_class(getter: Callable[[Any], R]) -> ClassProperty[R]:
        """Return a property, and tell type checkers that the class has it too."""
        ...

else:
    ClassMethod, ClassProperty = Callable, property
    property_on_class = property

    def on_class(method: Callable[..., R]) -> Callable[..., R]:
        """Tell type checkers that a method can be called on the class too."""
        return method
