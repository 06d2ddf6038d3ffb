"""Tabular: what can be printed, written to files and read again."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import rich.console
import rich.table
from rich.text import Text

from hwa_keras.core.types import PathLike, Self
from hwa_keras.results.files import write_json, write_text
from hwa_keras.results.text import csv_cell

__all__ = ["Tabular", "cell", "plain_table"]

_WIDE = 1000  # columns: wider than any table, so that no row is broken


class Tabular:
    """Base class of results: rows, tables and files.

    A subclass writes `rows()`, `to_dict()` and `table()`, and `from_dict` if its files
    are read again.
    """

    def rows(self) -> list[dict[str, Any]]:
        """A list of dictionaries: the lines of `to_csv` and `to_pandas`."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Everything, each single measurement included, as a nested dictionary."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote, also through JSON."""
        raise NotImplementedError

    def table(self) -> rich.table.Table:
        """A `rich.table.Table` of what was found."""
        raise NotImplementedError

    def tables(self) -> list[rich.table.Table]:
        """What is printed, a list of `rich.table.Table`s."""
        return [self.table()]

    def to_csv(self, path: PathLike, *others: "Tabular") -> None:
        """Write `rows()` as CSV, with full precision; those of other results below.

        Columns that a result does not have stay empty. Text that a spreadsheet would
        calculate, such as a model's name "=1+1", gets an apostrophe before it. The file
        is written whole or not at all.

        Args:
            path: Where to write. Missing folders are made.
            *others: More results.
        """
        rows = [row for result in (self, *others) for row in result.rows()]
        heads = dict.fromkeys(key for row in rows for key in row)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([csv_cell(head) for head in heads])
        writer.writerows([csv_cell(row.get(h, "")) for h in heads] for row in rows)
        write_text(path, text.getvalue())

    def to_json(self, path: PathLike) -> None:
        """Write `to_dict()` as JSON, whole or not at all.

        JSON has no NaN and no infinities: these are written as the strings "NaN",
        "Infinity" and "-Infinity", which `from_json` reads as numbers again.

        Args:
            path: Where to write. Missing folders are made.
        """
        write_json(path, self.to_dict())

    @classmethod
    def from_json(cls, path: PathLike) -> Self:
        """The result that `to_json` wrote to a path."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def to_pandas(self) -> Any:
        """`rows()` as a `pandas.DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_pandas` needs pandas: `pip install pandas`. `rows()` gives the "
                "same numbers as a list of dictionaries."
            ) from error
        return pandas.DataFrame(self.rows())

    def __str__(self):
        text = io.StringIO()
        self.print(text)
        return text.getvalue().rstrip("\n")

    def print(self, file: TextIO | None = None) -> None:
        """Print the tables.

        Args:
            file: A text file, or None for standard output.
        """
        console = rich.console.Console(file=file)
        if not console.is_terminal:
            console = rich.console.Console(file=file, width=_WIDE)
        for table in self.tables():
            console.print(table)


def plain_table(title, heads, rows, named=1):
    """A `rich.table.Table` of texts, none of which is taken as markup.

    Args:
        title: String.
        heads: The heads of the columns.
        rows: Rows of cells.
        named: Integer, how many columns are names, at the left; the others are numbers.
    """
    table = rich.table.Table(title=Text(title))
    for i, head in enumerate(heads):
        table.add_column(Text(str(head)), justify="left" if i < named else "right")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    return table


def cell(found):
    """An estimate in a table: the mean, ± the half-width of its interval, or its ends.

    Example:
        >>> from hwa_keras.results import Estimate
        >>> from hwa_keras.results.tabular import cell
        >>> cell(Estimate(0.9, 0.1, 0.8, 1.0, 9)), cell(Estimate(0.9, 0.1, 0.5, 1.0, 9))
        ('0.9000 ± 0.1000', '0.9000 (0.5000 to 1.0000)')
    """
    if not found.half_width >= 0:  # NaN: one sample, or some that are not finite.
        return f"{found.mean:.4f}"
    above, below = found.high - found.mean, found.mean - found.low
    if abs(above - below) > 1e-6 * found.half_width:
        return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"
    return f"{found.mean:.4f} ± {found.half_width:.4f}"
