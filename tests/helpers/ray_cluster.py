"""Run by a test: `mimo encode ... --ray` on a cluster of two nodes, one of which is killed while it encodes.

Arguments: the output directory, the shards that are to be there before the kill, and the command's own.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from mimo_plugin.cli import main

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# A node is given up after five seconds instead of half a minute.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000}


def kill(cluster: Cluster, node: Any, output: Path, shards: int) -> None:
    """Kills a node, workers first, at a moment when one of them encodes."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    while len(list(output.glob("*.parquet"))) < shards or not any(map(encodes, raylet.children())):
        time.sleep(0.005)
    for process in [*raylet.children(recursive=True), raylet]:
        process.kill()
    (output.parent / "killed").write_text(str(len(list(output.glob("*.parquet")))))
    cluster.remove_node(node, allow_graceful=False)


def encodes(process: psutil.Process) -> bool:
    try:
        return "MapBatches(RayEncoder)).submit" in " ".join(process.cmdline())
    except psutil.Error:
        return False


if __name__ == "__main__":
    there = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": HEALTH})
    victim = there.add_node(**NODE)
    arguments = there, victim, Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=kill, args=arguments, daemon=True).start()
    status = main([*sys.argv[3:], "--output", sys.argv[1], "--ray", there.address])
    there.shutdown()
    sys.exit(status)
