"""The ir_metadata header of a run: how it was made, as YAML in comment lines before the hits.

The keys are those of schema 0.1, https://www.ir-metadata.org (Breuer, Keller and Schaer, SIGIR 2022).
"""

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mimo_plugin.core.config import printable, yaml_text
from mimo_plugin.core.environment import cores, git_commit, installed_versions, memory_bytes, processor
from mimo_plugin.core.errors import DataError

_START, _END = b"# ir_metadata.start", b"# ir_metadata.end"
_BOM = b"\xef\xbb\xbf"
_LIBRARIES = ("faiss-cpu", "numpy", "sentence-transformers", "torch", "transformers")
_TOOLKITS = ("mimo-plugin", "pyserini")


def run_header(
    tag: str,
    retrieval: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    collections: Sequence[str] = (),
) -> str:
    """The header's lines, which `write_run` puts before the hits.

    Args:
        retrieval: steps that made the run: `name`, `method`, parameters.
        given: further metadata, such as `actor` and `research goal`; wins over what is found here.
        collections: whose topics were searched.
    """
    libraries, toolkits = (
        [f"{name}=={version}" for name, version in installed_versions(names).items()]
        for names in (_LIBRARIES, _TOOLKITS)
    )
    memory = memory_bytes()
    found = {
        "schema-version": 0.1,
        "run-version": 1.0,
        "tag": tag,
        "actor": {"role": "experimenter"},
        "platform": {
            "hardware": {
                "cpu": {
                    "model": processor(),
                    "architecture": platform.machine(),
                    "number of cores": cores(),
                },
                "ram": None if memory is None else f"{memory / 2**30:.1f} GB",
            },
            "operating system": {
                "kernel": f"{platform.system()} {platform.release()}",
                "distribution": _distribution(),
            },
            "software": {
                "libraries": {"python": [f"python=={platform.python_version()}", *libraries]},
                "retrieval toolkit": toolkits,
            },
        },
        "research goal": {},
        "implementation": {
            "executable": {"cmd": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])},
            "source": {"lang": ["python", "java"], "commit": git_commit(Path(__file__).parent)},
        },
        "method": {
            "automatic": True,
            "score ties": "reverse alphabetical order",
            "retrieval": [dict(step) for step in retrieval],
        },
        "data": {"test collection": {"name": ", ".join(collections)}} if collections else {},
    }
    text = yaml_text(_known(printable(_merged(found, given))))
    lines = [_START.decode(), *(f"# {line}" for line in text.rstrip("\n").split("\n")), _END.decode()]
    return "\n".join(lines) + "\n"


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return platform.version()


def _merged(found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _merged(found[name], given[name])
        for name in found.keys() & given.keys()
        if isinstance(found[name], Mapping) and isinstance(given[name], Mapping)
    }
    return {**found, **given, **both}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are None."""
    return {
        name: _known(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


def skip_header(stream: IO[bytes], path: Path) -> int:
    """Reads past a byte order mark and a header, if there are any; returns the number of the next line.

    Args:
        stream: at its beginning.
        path: for messages.

    Raises:
        DataError: the header has no end.
    """
    first = stream.readline(len(_BOM) + len(_START) + 2)
    if first.removeprefix(_BOM).rstrip() != _START:
        stream.seek(len(_BOM) if first.startswith(_BOM) else 0)
        return 1
    for number, line in enumerate(stream, start=2):
        if line.rstrip() == _END:
            return number + 1
        if not line.startswith(b"#"):
            raise DataError(
                f"{path}:{number}: the ir_metadata header goes on without '#', expected '{_END.decode()}' "
                "before the first hit"
            )
    raise DataError(f"{path}: the ir_metadata header has no end, expected '{_END.decode()}' and the hits")
