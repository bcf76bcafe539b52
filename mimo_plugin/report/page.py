"""The page: sections in, HTML out."""

from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files

from mimo_plugin.report.figure import Drawn, Figure
from mimo_plugin.report.results import Results
from mimo_plugin.report.sections import Folded, Part, Section
from mimo_plugin.report.system_tables import provenance
from mimo_plugin.report.table import Cell
from mimo_plugin.report.wording import labels, setting

GENERATOR = "mimo-plugin"
_SAFE_LINKS = ("https://", "http://")


def render_page(results: Results, sections: Sequence[Section], drawn: Mapping[str, Drawn]) -> str:
    """The HTML of a report, whole in itself.

    Args:
        drawn: name of a figure -> what was drawn.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mimo_plugin.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["exact"] = _exact
    environment.tests.update(figure=_is_figure, folded=_is_folded, safe_link=_is_safe_link)
    style = package_files("mimo_plugin.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        generator=GENERATOR,
        results=results,
        labels=labels(results),
        setting=setting(results),
        facts=_facts(results),
        sections=sections,
        provenance=[(title, entries) for title, entries in provenance(results) if entries],
        # Ours, and the drawing's own, which escapes the names in it.
        style=Markup(style),
        svg={name: Markup(one.inline) for name, one in drawn.items()},
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    """What a reader wants to know first."""
    topics = results.evaluation.topics
    documents = sorted(
        {system.documents for system in results.systems.values() if system.documents is not None}
    )
    facts = [
        ("Collections", ", ".join(results.config.collections)),
        ("Languages", f"{len(topics.languages)}: {', '.join(topics.languages)}"),
        (
            "Topics",
            f"{topics.judged:,}" + (f" in {topics.units:,} parallel units" if topics.parallel else ""),
        ),
    ]
    if documents:
        facts.append(("Documents", " or ".join(f"{number:,}" for number in documents)))
    facts.append(("Hits a query", f"{results.config.depth:,}"))
    return facts


def _exact(cell: Cell) -> str:
    """A number with every digit, as JSON has it."""
    return repr(cell.exact)


def _is_figure(part: Part) -> bool:
    return isinstance(part, Figure)


def _is_folded(part: Part) -> bool:
    return isinstance(part, Folded)


def _is_safe_link(address: str) -> bool:
    """No script: a results file may come from elsewhere."""
    return address.lower().startswith(_SAFE_LINKS)
