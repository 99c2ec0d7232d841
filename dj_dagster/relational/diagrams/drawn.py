"""What can be drawn as a picture: into files, and in notebooks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dj_dagster.errors import DataJointError
from dj_dagster.relational.diagrams import drawing
from dj_dagster.relational.diagrams.mermaid import to_mermaid
from dj_dagster.relational.diagrams.picture import Picture

if TYPE_CHECKING:
    import pydot


class Svg(str):
    """The text of an SVG image, which notebooks show as the image."""

    __slots__ = ()

    @property
    def data(self) -> str:
        """The text itself."""
        return str(self)

    def _repr_svg_(self) -> str:
        return str(self)


class Drawn:
    """The ways to draw the picture that a subclass gives as `_picture`."""

    @property
    def direction(self) -> str:
        """Where children are drawn: ``"TB"`` below their parents, ``"LR"`` to the right."""
        return "TB"

    def make_dot(self, direction: str | None = None) -> pydot.Dot:
        """Return the drawing as pydot's graph, which can be changed before it is drawn."""
        return drawing.to_dot(self._picture(), direction or self.direction)

    def make_svg(self, direction: str | None = None) -> Svg:
        """Return the drawing as the text of an SVG image."""
        return Svg(drawing.draw(self.make_dot(direction), "svg").decode())

    def make_png(self, direction: str | None = None) -> io.BytesIO:
        """Return the drawing as a PNG file in memory."""
        return io.BytesIO(drawing.draw(self.make_dot(direction), "png"))

    def make_image(self, direction: str | None = None) -> Any:
        """Return the drawing as an array of pixels, rows first, with red, green, blue and opacity.

        Raises
        ------
        DataJointError
            If matplotlib or what draws is not installed.
        """
        return _matplotlib("make_image").imread(self.make_png(direction))

    def make_mermaid(self, direction: str | None = None) -> str:
        """Return the drawing as Mermaid text, for which nothing needs to be installed."""
        return to_mermaid(self._picture(), direction or self.direction)

    def save(self, filename: str | Path, format: str | None = None) -> None:
        """Write the drawing into a file.

        Parameters
        ----------
        format
            ``"svg"``, ``"png"``, ``"dot"`` or ``"mermaid"``; by default what the name ends with:
            ``.svg``, ``.png``, ``.dot``, ``.mmd`` or ``.mermaid``.

        Raises
        ------
        DataJointError
            For another format, or when what draws is not installed.
        """
        path = Path(filename)
        kind = (format or path.suffix[1:]).lower()
        if kind == "svg":
            path.write_text(self.make_svg(), encoding="utf-8")
        elif kind == "png":
            path.write_bytes(self.make_png().getvalue())
        elif kind == "dot":
            path.write_text(self.make_dot().to_string(), encoding="utf-8")
        elif kind in ("mmd", "mermaid"):
            path.write_text(self.make_mermaid() + "\n", encoding="utf-8")
        else:
            raise DataJointError(
                f"A diagram cannot be saved as {kind or path.name!r}: end the file's name with "
                ".svg, .png, .dot or .mmd, or pass format=."
            )

    def draw(self) -> None:
        """Show the drawing in a window or below the notebook's cell, by matplotlib.

        Raises
        ------
        DataJointError
            If matplotlib or what draws is not installed.
        """
        pyplot = _matplotlib("draw")
        pyplot.imshow(self.make_image())
        pyplot.gca().axis("off")
        pyplot.show()

    def _repr_svg_(self) -> str | None:
        try:
            text = self.make_svg().data
        except DataJointError:
            return None
        # The element alone, without what makes a file of it.
        return text[text.index("<svg") :].rstrip()

    def _repr_html_(self) -> str:
        """Return the image, or Mermaid text where Graphviz is missing."""
        return self._repr_svg_() or f"<pre class='mermaid'>\n{self.make_mermaid()}\n</pre>"

    def _picture(self) -> Picture:
        raise NotImplementedError


def _matplotlib(method: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise DataJointError(
            f"{method}() needs matplotlib, which is not installed. In a notebook write the diagram "
            "alone in a cell; elsewhere save('diagram.svg')."
        ) from None
    return pyplot
