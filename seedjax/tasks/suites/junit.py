"""Java tests that are written for JUnit 5, run without a build tool."""

import glob
import re

from seedjax.sandbox.script import Script
from seedjax.tasks.suites.stand_ins import stand_in

END_MARK = "seedjax-end-of-test"
# Where distributions keep Java libraries. Versions without a number are links.
JARS = (
    "/usr/share/java/junit-jupiter*.jar",
    "/usr/share/java/junit-platform-[ceol]*.jar",
    "/usr/share/java/opentest4j.jar",
    "/usr/share/java/apiguardian-api.jar",
    "/usr/share/java/univocity-parsers.jar",
    "/usr/share/java/assertj-core.jar",
    "/usr/share/java/byte-buddy.jar",
)


def absent() -> str | None:
    """Why tests cannot be run here; None if they can."""
    if "junit-jupiter-engine" in class_path():
        return None
    return (
        "JUnit 5 is not in /usr/share/java; to install it, for example: apt-get "
        "install junit5 libassertj-core-java"
    )


def class_path() -> str:
    """The class path: the installed JUnit, other needs of tests, and the program."""
    jars = sorted({jar for pattern in JARS for jar in glob.glob(pattern)})
    named = [jar for jar in jars if not re.search(r"-\d[\w.]*\.jar$", jar)]
    return ":".join([*named, "."])


def junit_script(files: dict[str, str], tests: list[str]) -> Script:
    """Compiles all `files` (name -> text) and runs the test classes `tests`."""
    path = class_path()
    sources = ["SeedjaxRunner.java", *files]
    return Script(
        language="java",
        source=stand_in("SeedjaxRunner.java"),
        file_name="SeedjaxRunner.java",
        files=files,
        end_mark=END_MARK,
        compile=(
            "javac",
            "-J-XX:+UseSerialGC",
            "-J-XX:TieredStopAtLevel=1",
            "-encoding",
            "UTF-8",
            "-cp",
            path,
            "-d",
            ".",
            *sources,
        ),
        command=(
            "java",
            "-Xmx{megabytes}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            path,
            "SeedjaxRunner",
            *tests,
        ),
    )
