"""Results that are printed as tables."""

import io

import rich.console

__all__ = ["Printed", "readable"]

_WIDE = 1000  # columns: wider than any table, so that no row is broken


class Printed:
    """Mixin for results with `table()` and `totals()`: printed, they are these."""

    def table(self):
        """The rows as a `rich.table.Table`."""
        raise NotImplementedError

    def totals(self):
        """The sums as a `rich.table.Table`."""
        raise NotImplementedError

    def tables(self):
        """What is printed, a list of `rich.table.Table`s."""
        return [self.table(), self.totals()]

    def __str__(self):
        text = io.StringIO()
        self.print(text)
        return text.getvalue().rstrip("\n")

    def print(self, file=None):
        """Print the table and the totals.

        Args:
            file: A text file, or None for standard output.
        """
        console = rich.console.Console(file=file)
        if not console.is_terminal:
            console = rich.console.Console(file=file, width=_WIDE)
        for table in self.tables():
            console.print(table)


def readable(value, unit):
    """A number with a prefix of its unit, such as 13.4 nJ."""
    for prefix, factor in (
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
        ("n", 1e-9),
        ("p", 1e-12),
    ):
        if value >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value * 1e15:.4g} f{unit}" if value else f"0 {unit}"
