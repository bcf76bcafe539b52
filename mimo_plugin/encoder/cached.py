"""Names of checkpoints on this machine. Shell completion imports it: nothing heavy is imported here."""

from pathlib import Path

from mimo_plugin.encoder.packaged import PACKAGES


def cached_checkpoints() -> list[str]:
    """Hub ids with safetensors weights in the local cache."""
    from huggingface_hub import constants

    weights = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/*.safetensors")
    folders = {path.parents[2].name for path in weights}
    return sorted(name.removeprefix("models--").replace("--", "/") for name in folders)


def checkpoints_at_hand() -> list[str]:
    """Packaged checkpoints and those in the local cache."""
    return [*PACKAGES, *cached_checkpoints()]
