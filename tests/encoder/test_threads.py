"""Two threads at once: the first use of every library in fresh processes; no thread holds up the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.export import GraphManifest
from mimo_plugin.encoder.options import EncoderOptions

# A process that hangs does so for ever.
LIMIT = 120

FIRST_USES = """
import sys, threading
from pathlib import Path
import numpy as np
from mimo_plugin.encoder.export import OnnxRunner, OpenVinoRunner
from mimo_plugin.encoder.batching import first_batch

for runner in (OpenVinoRunner(Path(sys.argv[1]), "float32", 2), OnnxRunner(Path(sys.argv[2]), 2)):
    features = first_batch(runner.inputs)
    together = threading.Barrier(2)
    def run():
        together.wait()
        runner.run(features)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("ok")
"""

FIRST_TEXTS = """
import sys
import torch
torch.set_num_threads(2)
from mimo_plugin.indexing.nearest import searching_thread
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions
import faiss

student = Encoder(sys.argv[1], EncoderOptions(backend=sys.argv[2], device="cpu", batch_size=1))
vectors = student.encode_documents(["one", "two words", "three words here", "four"] * 4)
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
with searching_thread() as thread:
    found = [thread.submit(index.search, vectors, 3), thread.submit(index.search, vectors, 3)]
    student.encode_queries(["one", "two"] * 4)
    print(len([one.result() for one in found]), "searches")
print("ok")
"""

STUCK = """
import ctypes, os, sys, threading, time
from pathlib import Path
from mimo_plugin import cli
from mimo_plugin.core.files import replacing
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.options import EncoderOptions

FOREVER = 10**6

class Stuck:
    name, workers, tokens = "torch", 2, 64
    def run(self, features):
        # In one piece: two workers come here at once.
        os.write(1, b"here\\n")
        time.sleep(FOREVER)

def in_a_batch(**_):
    loaded = Encoder(sys.argv[2], EncoderOptions(backend="torch", device="cpu", batch_size=1))
    with replacing(Path(sys.argv[3])) as beside:
        beside.write_text("half")
        Encoder.of(loaded.model, "stuck", loaded.options, Stuck()).encode_documents(["one", "two", "three"])

def with_the_gil(**_):
    # PyDLL keeps the GIL while the C function runs.
    stuck = ctypes.PyDLL(None).system
    threading.Thread(target=stuck, args=(b"echo here; exec sleep 60 > /dev/null",)).start()
    time.sleep(FOREVER)

cli.mimo.main = {"in-a-batch": in_a_batch, "with-the-gil": with_the_gil}[sys.argv[1]]
cli.entry_point()
"""


@pytest.fixture
def busy() -> Iterator[None]:
    """Something else for one core to do."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield
        process.kill()


def two() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "2"}


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=two(), capture_output=True, text=True, timeout=LIMIT, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_graphs_first_batches_come_together(tiny: Path, caches: Path) -> None:
    for backend in ("openvino", "onnx"):
        Encoder(str(tiny), EncoderOptions(backend=backend, device="cpu"))
    manifests = [
        (GraphManifest.model_validate_json(path.read_bytes()), path.parent)
        for path in caches.glob("*/graph.json")
    ]
    graphs = {manifest.key["backend"]: directory for manifest, directory in manifests}
    for _ in range(4):
        assert run(FIRST_USES, graphs["openvino"], graphs["onnx"]) == "ok\n"


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_fresh_process_encodes_and_searches(tiny: Path, backend: str) -> None:
    Encoder(str(tiny), EncoderOptions(backend=backend, device="cpu"))
    assert run(FIRST_TEXTS, tiny, backend) == "2 searches\nok\n"


def end(*arguments: object) -> int:
    """The exit status of a stuck command that gets SIGTERM."""
    command = [sys.executable, "-c", STUCK, *map(str, arguments)]
    with subprocess.Popen(command, env=two(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            process.send_signal(signal.SIGTERM)
            return process.wait(LIMIT)
        finally:
            process.kill()


@pytest.mark.slow
def test_a_stuck_batch_does_not_hold_up_the_end(tiny: Path, tmp_path: Path) -> None:
    assert end("in-a-batch", tiny, tmp_path / "run.trec") == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_not_even_with_the_gil() -> None:
    assert end("with-the-gil") == -signal.SIGALRM
