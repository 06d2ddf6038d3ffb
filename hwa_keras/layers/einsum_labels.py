"""EinsumLabels: which labels of an einsum are rows, columns and groups."""

from dataclasses import dataclass

__all__ = ["EinsumLabels"]


@dataclass(frozen=True)
class EinsumLabels:
    """The labels of an equation `inputs,kernel->output`, by what they are.

    Args:
        equation: String, as of `keras.layers.EinsumDense`.
        elided: Integer, number of axes that `...` stands for. Their labels are digits.

    Example:
        >>> from hwa_keras.layers.einsum_labels import EinsumLabels
        >>> labels = EinsumLabels("...ab,abc->...ac", elided=1)
        >>> labels.inputs, labels.kernel, labels.output
        ('0ab', 'abc', '0ac')
        >>> labels.outer, labels.shared, labels.rows, labels.columns
        ('0', 'a', 'b', 'ac')
    """

    equation: str
    elided: int = 0

    @property
    def _parts(self):
        axes = "0123456789"[: self.elided]
        operands, output = self.equation.replace("...", axes).split("->")
        return (*operands.split(","), output)

    @property
    def inputs(self):
        """Labels of the inputs."""
        return self._parts[0]

    @property
    def kernel(self):
        """Labels of the kernel."""
        return self._parts[1]

    @property
    def output(self):
        """Labels of the output."""
        return self._parts[2]

    @property
    def outer(self):
        """Labels of the output that the kernel lacks: one product for each.

        They come as in the inputs, so that the examples of a batch come first.
        """
        kept = [n for n in self.inputs if n in self.output and n not in self.kernel]
        return "".join(dict.fromkeys(kept))

    @property
    def columns(self):
        """Labels of the kernel that the output has."""
        return "".join(label for label in self.kernel if label in self.output)

    @property
    def shared(self):
        """Labels of the columns that the inputs have: groups."""
        return "".join(label for label in self.columns if label in self.inputs)

    @property
    def rows(self):
        """Labels of the kernel that the output lacks."""
        return "".join(label for label in self.kernel if label not in self.output)

    @property
    def is_elementwise(self):
        """Whether the kernel multiplies the last axes of the inputs, one by one."""
        operands, output = self.equation.split("->")
        inputs, kernel = operands.split(",")
        return inputs == output and inputs.endswith(kernel)

    @property
    def fit_crossbar(self):
        """Whether groups are the outermost columns and no operand has a label twice."""
        once = all(len(set(p)) == len(p) for p in (self.inputs, self.kernel))
        return once and self.columns.startswith(self.shared)
