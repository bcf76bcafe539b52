"""The sources of `mimo data parallel` as the command line names them: LANG=SOURCE."""

from collections.abc import Sequence
from pathlib import Path

from mimo_plugin.data.parallel_dataset import DatasetColumns
from mimo_plugin.data.parallel_files import MosesFiles, TsvFile
from mimo_plugin.errors import Problems, UsageError

Source = TsvFile | MosesFiles | DatasetColumns


def parse_sources(
    *,
    tsv: Sequence[str] = (),
    moses: Sequence[str] = (),
    datasets: Sequence[str] = (),
    columns: str = "english,non_english",
    split: str = "train",
    anchor: str = "en",
    opus: Sequence[Source] = (),
) -> list[Source]:
    """The sources that options name, in order.

    Args:
        opus: what `opus_sources` found; they come first.
        tsv: LANG=FILE.
        moses: LANG=ANCHOR_FILE,LANG_FILE.
        datasets: LANG=NAME or LANG=ID:CONFIG, either with #SPLIT at the end.
        columns: ANCHOR_COLUMN,TEXT_COLUMN of all datasets.
        split: of datasets that name none.

    Raises:
        UsageError: with everything that is wrong with the options.
    """
    problems = Problems(UsageError)
    sources: list[Source] = list(opus)
    if opus and anchor != opus[0].anchor:
        problems.add(f"--anchor {anchor}: OPUS's texts of the paper are with {opus[0].anchor}, expected that")
    for option, specs in (("--tsv", tsv), ("--moses", moses), ("--dataset", datasets)):
        for spec in specs:
            lang, equals, rest = spec.partition("=")
            if not equals or not rest or lang.split() != [lang]:
                problems.add(f"{option} {spec}: expected LANG=SOURCE, such as de=opus.de.tsv.gz")
            elif lang == anchor:
                problems.add(
                    f"{option} {spec}: {lang} is the anchor language, its own pairs are made of the other "
                    "languages' anchor texts (--identity); expected another language"
                )
            elif option == "--tsv":
                sources.append(TsvFile(lang, anchor, Path(rest).expanduser()))
            elif option == "--moses":
                names = rest.split(",")
                if len(names) != 2 or not all(names):
                    problems.add(
                        f"{option} {spec}: {len(names)} files, expected {lang}={anchor.upper()}_FILE,"
                        f"{lang.upper()}_FILE"
                    )
                    continue
                anchor_path, text_path = (Path(name).expanduser() for name in names)
                sources.append(MosesFiles(lang, anchor, anchor_path, text_path))
            else:
                sources.append(_dataset(lang, anchor, rest, columns, split))
    if datasets and (len(columns.split(",")) != 2 or not all(columns.split(","))):
        problems.add(f"--columns {columns}: expected two names, ANCHOR_COLUMN,TEXT_COLUMN")
    if not (tsv or moses or datasets or opus):
        problems.add("no source was given, expected at least one of --tsv, --moses, --dataset and --opus")
    repeated = {source for source in sources if sources.count(source) > 1}
    problems.extend(
        f"{source.lang}: the same source was given twice, expected it once" for source in repeated
    )
    problems.raise_any()
    return sources


def _dataset(lang: str, anchor: str, spec: str, columns: str, split: str) -> DatasetColumns:
    name, config = spec, None
    if not Path(spec).expanduser().exists():
        name, _, own_split = spec.partition("#")
        split = own_split or split
        if not Path(name).expanduser().exists():
            name, _, own_config = name.partition(":")
            config = own_config or None
    if Path(name).expanduser().exists():
        name = str(Path(name).expanduser())
    anchor_column, _, text_column = columns.partition(",")
    return DatasetColumns(lang, anchor, name, config, split, anchor_column, text_column)
