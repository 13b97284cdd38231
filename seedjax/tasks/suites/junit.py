"""Java tests that are written for JUnit 5, run without a build tool."""

import glob
import re

from seedjax.sandbox.script import Script

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
RUNNER = """
import java.io.PrintWriter;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

class SeedjaxRunner {
    public static void main(String[] names) {
        var builder = LauncherDiscoveryRequestBuilder.request();
        for (String name : names)
            builder.selectors(DiscoverySelectors.selectClass(name));
        var listener = new SummaryGeneratingListener();
        LauncherFactory.create().execute(builder.build(), listener);
        var summary = listener.getSummary();
        summary.printFailuresTo(new PrintWriter(System.out, true), 5);
        long passed = summary.getTestsSucceededCount();
        if (passed == 0 || passed != summary.getTestsFoundCount()) {
            System.out.println("Error: " + passed + " of "
                + summary.getTestsFoundCount() + " tests pass");
            System.exit(1);
        }
        System.out.println("seedjax-end-of-test");
        System.exit(0);
    }
}
"""


def absent() -> str | None:
    """Why tests cannot be run here; None if they can."""
    if "junit-jupiter-engine" in class_path():
        return None
    return (
        "JUnit 5 is not in /usr/share/java; to install it, for example: apt-get "
        "install junit5 libassertj-core-java"
    )


def class_path() -> str:
    """What is there of JUnit and of what tests use besides, and the program."""
    jars = sorted({jar for pattern in JARS for jar in glob.glob(pattern)})
    named = [jar for jar in jars if not re.search(r"-\d[\w.]*\.jar$", jar)]
    return ":".join([*named, "."])


def junit_script(files: dict[str, str], tests: list[str]) -> Script:
    """Compiles all `files` (name -> text) and runs the test classes `tests`."""
    path = class_path()
    sources = ["SeedjaxRunner.java", *files]
    return Script(
        language="java",
        source=RUNNER,
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
