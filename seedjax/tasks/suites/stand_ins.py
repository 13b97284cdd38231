"""Stand-ins for libraries that tests in other languages call: files in `stand_ins/`
with only what the tests use, so that no package has to be installed."""

from importlib import resources

# Language -> where it lies beside the program -> file of the package.
COMPARING = {
    "javascript": {"node_modules/lodash.js": "lodash.js"},
    "perl": {"Data/Compare.pm": "Compare.pm"},
    "csharp": {"CompareNetObjects.cs": "CompareNetObjects.cs"},
}


def stand_in(name: str) -> str:
    """The text of a file of `stand_ins/`."""
    file = resources.files("seedjax.tasks.suites") / "stand_ins" / name
    return file.read_text(encoding="utf-8")


def comparing(language: str) -> dict[str, str]:
    """What tests in a language compare values with: file name beside the program ->
    text; {} where they need nothing."""
    return {path: stand_in(name) for path, name in COMPARING.get(language, {}).items()}
