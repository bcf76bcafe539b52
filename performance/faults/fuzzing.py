"""Every reader fed with damaged files for a set time."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.readers import Hang, Reader

from faults.processes import Process

Say = Callable[[str], None]

_ROUND = 100
_SHOWN = 400


def fuzz_test(reader: Reader, log: Path, *, seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Reads damaged files: an error of ours, or a result. In a process of its own, which a crash may end."""
    log.mkdir(parents=True, exist_ok=True)
    file = log / "found.json"
    ended = Process(lambda: _fuzz(reader, file, seconds, seed), log).finish()
    found: dict[str, Any] = json.loads(file.read_text())
    if ended.status:
        found["faults"].append(f"the process ended with {ended.status}: {' '.join(ended.errors)[-_SHOWN:]}")
    say(
        f"{reader.name}: {found['examples']} files, {found['errors']} errors, {found['read']} read, "
        f"{len(found['faults'])} faults"
    )
    return found


def _fuzz(reader: Reader, file: Path, seconds: float, seed: int) -> int:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    found: dict[str, Any] = {
        "reader": reader.name,
        "examples": 0,
        "errors": 0,
        "read": 0,
        "seconds": seconds,
        "faults": [],
    }
    kinds: set[str] = set()

    def attempt(damage: tuple[str, bytes]) -> None:
        name, content = damage
        found["examples"] += 1
        try:
            error = reader.attempt(name, content)
        except (Exception, Hang) as fault:
            where = _place(fault)
            if where not in kinds:
                kinds.add(where)
                found["faults"].append(f"{where}: {name}: {content!r}"[:_SHOWN])
        else:
            found["errors" if error else "read"] += 1

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run = given(reader.damage())(attempt)
        options = settings(
            max_examples=_ROUND,
            database=None,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        seeded(seed)(options(run))()
        seed += 1
        beside = file.with_suffix(".tmp")
        beside.write_text(json.dumps(found))
        beside.replace(file)
    return 0


def _place(fault: BaseException) -> str:
    """The kind of an exception and the last line of the package that it passed."""
    places, trace = [""], fault.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "mimo_plugin" in path.parts:
            places.append(f" at {path.name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(fault).__name__}{places[-1]} ({str(fault)[:80]})"
