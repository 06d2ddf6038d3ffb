"""What tables of figures have in common: how they are printed."""

import io

import rich.console

_WIDE = 1000  # columns: wider than any table, so that no row is broken


class Printed:
    """Mixin for results with `table()` and `totals()`: printed, they are these."""

    def table(self):
        """The rows as a `rich.table.Table`."""
        raise NotImplementedError

    def totals(self):
        """The sums as a `rich.table.Table`."""
        raise NotImplementedError

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
        console.print(self.table())
        console.print(self.totals())
