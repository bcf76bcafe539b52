"""The configs that come with the package, and how a name becomes a file."""

from difflib import get_close_matches
from pathlib import Path

from mimo_plugin.benchmarks.reading import read_source
from mimo_plugin.errors import EnvironmentProblem, Problems, UsageError

_FOLDER = "eval_configs"
_SUFFIXES = (".yaml", ".yml")


def configs_directory() -> Path:
    """Where the packaged configs lie: in an installed package inside of it, in a checkout at its top.

    Raises:
        EnvironmentProblem: they are in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for directory in (package / _FOLDER, package.parent / _FOLDER):
        if directory.is_dir():
            return directory
    raise EnvironmentProblem(f"{package / _FOLDER} is missing, expected the packaged configs: install again")


def config_names() -> list[tuple[str, str]]:
    """Name and title of every packaged config, in order of names."""
    found = []
    for path in sorted(configs_directory().glob("*.yaml")):
        problems = Problems(UsageError)
        values = read_source(path, problems).values
        problems.raise_any()
        found.append((path.stem, str(values.get("title", ""))))
    return found


def find_config(name: str, beside: Path | None = None) -> Path:
    """The file of a config.

    Args:
        name: of a packaged config, or a file: whatever ends in .yaml or has a slash in it.
        beside: directory that a relative file is looked for in; None is the current one.

    Raises:
        UsageError: there is no such config or file.
    """
    packaged = {path.stem: path for path in configs_directory().glob("*.yaml")}
    if not name.endswith(_SUFFIXES) and "/" not in name:
        if name in packaged:
            return packaged[name]
        near = get_close_matches(name, packaged, n=3)
        meant = f" (near: {', '.join(near)})" if near else ""
        raise UsageError(
            f"{name!r}: no such config, expected one of {', '.join(sorted(packaged))}, or a file that ends "
            f"in .yaml{meant}"
        )
    path = (beside or Path()) / Path(name)
    try:
        path = path.expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # too long for a name, ~nobody
        raise UsageError(f"{name!r}: {error}, expected a config in YAML") from error
    found = "is a directory" if path.is_dir() else "no such file"
    stem = path.stem
    meant = f"; the packaged config of that name is given without a path: {stem}" if stem in packaged else ""
    raise UsageError(f"{name!r}: {found}, expected a config in YAML{meant}")
