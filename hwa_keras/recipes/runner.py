"""The command line of a study: settings, a folder, tables, numbers and the page.

This module needs the extra `examples`: `from hwa_keras.recipes import runner`.
"""

import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from rich.console import Console

from hwa_keras.recipes import presets
from hwa_keras.results import Section, estimate, report, write_json
from hwa_keras.results.tabular import cell as cell_of
from hwa_keras.results.tabular import plain_table

__all__ = ["Run", "cell", "console", "main", "quiet", "reading"]

console = Console(width=None if sys.stdout.isatty() else 110)


class Run:
    """One run of a study.

    Args:
        settings: The settings, a dataclass.
        out: Path of the folder of all that is written.
        config: Path of the file or folder of the presets.
        preset: Dictionary of what chose the settings, such as the preset's name.

    Attributes:
        used: Dictionary of `preset` and settings, which files and page show.

    Example:
        >>> import dataclasses, pathlib
        >>> from hwa_keras.recipes.runner import Run
        >>> from hwa_keras.results import Section
        >>> @dataclasses.dataclass
        ... class Settings:
        ...     epochs: int = 3
        >>> out = pathlib.Path(tempfile.mkdtemp())
        >>> run = Run(Settings(), out, out, {"preset": "small"})
        >>> run.write_numbers(accuracy=0.5)
        >>> run.write_report("A study", {"accuracy": Section("Accuracy", "0.5")})
        0.5
        Written to ...
        >>> sorted(path.name for path in out.iterdir())
        ['report.html', 'results.json']
    """

    def __init__(
        self, settings: Any, out: Path, config: Path, preset: Mapping[str, Any]
    ) -> None:
        self.settings, self.out, self.config = settings, out, config
        self.used: dict[str, Any] = {**preset, **dataclasses.asdict(settings)}
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    def write_numbers(self, **numbers: Any) -> None:
        """Write `results.json`: the settings, the seconds so far and numbers."""
        content = {"settings": self.used, "seconds": self.seconds, **numbers}
        write_json(self.out / "results.json", content)

    def write_report(self, title: str, sections: Mapping[str, Section]) -> None:
        """Print sections, and write `report.html` and a PNG of each figure.

        Args:
            title: String, the title of the page.
            sections: Dictionary from the names of the PNG files to `results.Section`s.
        """
        for key, section in sections.items():
            if section.columns:
                table = plain_table(section.title, section.columns, section.rows)
                console.print(table)
            console.print(section.text)
            if section.figure is not None:
                section.figure.savefig(self.out / f"{key}.png", dpi=150)
        path = self.out / "report.html"
        report(path, title, settings=self.used, sections=list(sections.values()))
        console.print(f"Written to {self.out}.")


def main(
    study: Callable[[Run], None],
    settings: type,
    config: str | Path,
    flag: str = "preset",
    default: str = "smoke",
) -> None:
    """Run a study from the command line, with a flag for each of its settings.

    Other flags are `--config`, the presets, and `--out`, the folder.

    Args:
        study: Function of a `Run`.
        settings: A dataclass; see `presets.read`. What is wrong with a preset ends the
            program with one line.
        config: Path of the YAML file of the presets, or of a folder with
            `presets.yaml`. It names the study, in messages and as the folder in `runs`.
        flag: String, the flag that names the preset. Defaults to `"preset"`.
        default: String, the preset where it is left out. Defaults to `"smoke"`.
    """
    name = Path(config).stem
    flags.DEFINE_string(flag, default, f"Which preset of {Path(config).name}.")
    flags.DEFINE_string("config", str(config), "Where the presets are.")
    flags.DEFINE_string("out", f"runs/{name}", "Folder for all that is written.")
    presets.define_flags(settings, config)

    def run(_: Sequence[str]) -> None:
        values = flags.FLAGS
        quiet()
        with reading(name):
            preset, path = values[flag].value, Path(values.config)
            chosen = presets.read(path, preset, settings, presets.given(settings))
            out = Path(values.out)
            out.mkdir(parents=True, exist_ok=True)
        begun = Run(chosen, out, path, {flag: preset})
        study(begun)
        console.print(f"Done in {begun.seconds:.0f} s.")

    app.run(run)


@contextlib.contextmanager
def reading(program: str) -> Iterator[None]:
    """A context in which what is wrong with files and flags ends the program.

    It ends with one line and exit status 1, where a traceback would not help.

    Args:
        program: String, the name that the line begins with.

    Example:
        >>> from hwa_keras.recipes.runner import reading
        >>> with reading("my_study"):
        ...     raise ValueError("`epochs` must be at least 1.")
        Traceback (most recent call last):
        SystemExit: my_study: `epochs` must be at least 1.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"{program}: {' '.join(str(error).split())}")


def quiet() -> None:
    """Keep out what TensorFlow says of each export and each function it traces."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def cell(samples: Sequence[float]) -> str:
    """A mean in a table, with half of its 95 % interval if there are several samples.

    Example:
        >>> from hwa_keras.recipes.runner import cell
        >>> cell([0.5, 0.7, 0.9]), cell([0.5])
        ('0.7000 ± 0.4968', '0.5000')
    """
    return cell_of(estimate(samples))
