"""Stand-ins for libraries that tests in other languages call: files in `stand_ins/`
with only what the tests use, so that no package has to be installed."""

from seedjax.files.package import package_text

# Language -> where it lies beside the program -> file of the package.
COMPARING = {
    "javascript": {"node_modules/lodash.js": "lodash.js"},
    "perl": {"Data/Compare.pm": "Compare.pm"},
    "csharp": {"CompareNetObjects.cs": "CompareNetObjects.cs"},
}


def stand_in(name: str) -> str:
    """The text of a file of `stand_ins/`."""
    return package_text("seedjax.tasks.suites", f"stand_ins/{name}")


def comparing(language: str) -> dict[str, str]:
    """Files with which tests in a language compare values: name beside the program ->
    text; {} where they need nothing."""
    return {path: stand_in(name) for path, name in COMPARING.get(language, {}).items()}
