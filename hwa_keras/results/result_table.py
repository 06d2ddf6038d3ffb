"""The table of a `Result`."""

from hwa_keras.results.tabular import cell, plain_table

__all__ = ["result_table"]


def result_table(result):
    """Means and intervals of a `Result`: a row for each level of the last axis.

    Several series stand side by side. Of one, the median and the number of chips stand
    beside the mean; without axes there is a row for each metric.
    """
    if not result.axes:
        title = f"{result.name}, {result.chips} chips"
        rows = [[name, *_cells(result, metric=name)] for name in result.metrics]
        return plain_table(title, ["metric", "mean", "median", "chips"], rows)
    axis, series = result.axes[-1], result.series
    heads = [", ".join(result.titles_of(point)) for point in series]
    levels = list(zip(result.levels, axis.titles, strict=True))
    title = f"{result.metric} over {axis.name}, {result.chips} chips"
    if len(series) > 1:
        rows = [
            [text, *(cell(result.estimate(*point, level)) for point in series)]
            for level, text in levels
        ]
        return plain_table(f"{result.name}: {title}", [axis.label, *heads], rows)
    names = ", ".join([result.name, *filter(None, heads)])
    rows = [[text, *_cells(result, *series[0], level)] for level, text in levels]
    heads = [axis.label, result.metric, "median", "chips"]
    return plain_table(f"{names}: {title}", heads, rows)


def _cells(result, *point, metric=None):
    found = result.estimate(*point, metric=metric)
    return cell(found), f"{found.median:.4f}", str(found.count)
