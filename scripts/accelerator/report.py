"""The report of `scripts/check_accelerator`: JSON, Markdown and pictures."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from seedjax.plotting import open_pyplot, save

LIMIT = 400  # characters of a failure in the Markdown
TICKS = (1, 2, 4, 8, 16)  # tokens per forward pass


def write_report(report: dict[str, Any], out: Path) -> Path:
    """Adds results of tests, plans and benchmarks to `report` and writes report.json,
    report.md and decodes.png; returns the path of the Markdown."""
    report["tests"] = read_tests(out / "tests.xml") or read_log(out / "tests.log")
    report["bench"] = {
        step["preset"]: json.loads((out / step["name"] / "bench.json").read_text())
        for step in report["steps"]
        if "preset" in step and (out / step["name"] / "bench.json").exists()
    }
    plan = out / "plan" / "plan.json"
    report["plan"] = json.loads(plan.read_text()) if plan.exists() else None
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    curves = {
        preset: decode_points(bench["lines"])
        for preset, bench in report["bench"].items()
    }
    if curves:
        plot_decodes(curves, out / "decodes.png")
    page = out / "report.md"
    page.write_text(markdown(report, curves, out))
    return page


def read_tests(results: Path) -> list[dict[str, Any]]:
    """Name, outcome, seconds and message of each test of a JUnit file; none where it
    was not written."""
    if not results.exists():
        return []
    found = []
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = {"failure": "failed"}.get(child.tag, child.tag)
                message = child.get("message") or (child.text or "")
        found.append(
            {
                "name": case.get("name"),
                "outcome": outcome,
                "seconds": float(case.get("time") or 0.0),
                "message": " ".join(message.split()),
                "properties": {
                    each.get("name"): each.get("value")
                    for each in case.iter("property")
                },
            }
        )
    return found


def read_log(log: Path) -> list[dict[str, Any]]:
    """The same, as far as tests came, from what `pytest -v` printed until it was
    ended."""
    if not log.exists():
        return []
    shown = re.findall(
        r"^\S+::(\S.*?) (PASSED|FAILED|ERROR|SKIPPED)\b",
        log.read_text(errors="replace"),
        re.MULTILINE,
    )
    return [
        {
            "name": name,
            "outcome": outcome.lower(),
            "seconds": None,
            "message": "",
            "properties": {},
        }
        for name, outcome in shown
    ]


def decode_points(lines: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Tokens per forward pass and tokens per second of the decodes, by what computed
    them: "blocks", "token by token", and the same of other libraries."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if line["measure"] not in ("decode", "ar"):
            continue
        kind = "token by token" if line["measure"] == "ar" else "blocks"
        if line["library"] != "seedjax":
            kind = f"{kind}, {line['library']}"
        per_forward = line["tokens_per_forward"] or 1.0
        points.setdefault(kind, []).append((per_forward, line["tokens_per_second"]))
    return {kind: sorted(values) for kind, values in points.items()}


def plot_decodes(
    curves: dict[str, dict[str, list[tuple[float, float]]]], target: Path
) -> None:
    """Draws tokens per second against tokens per forward pass, a panel a size."""
    figure, axes = open_pyplot().subplots(
        1, len(curves), figsize=(4.5 * len(curves), 3.8), squeeze=False
    )
    for panel, (preset, kinds) in zip(axes[0], curves.items(), strict=True):
        for number, (kind, points) in enumerate(kinds.items()):
            xs, ys = zip(*points, strict=True)
            if kind.startswith("token by token"):
                panel.axhline(ys[0], color=f"C{number}", linestyle="--", label=kind)
            else:
                panel.plot(xs, ys, "o-", color=f"C{number}", label=kind)
        panel.set_title(preset)
        panel.set_xscale("log", base=2)
        panel.set_xticks(TICKS, labels=map(str, TICKS))
        panel.set_xlabel("tokens per forward pass")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
    axes[0][0].set_ylabel("tokens per second")
    figure.tight_layout()
    save(figure, target)


def kernel_lines(report: dict[str, Any]) -> list[str]:
    """Which kernels are on here, and each on against off."""
    lines = ["", "## Kernels", ""]
    lines += [
        f"* `{name}` {state}" for name, state in report.get("kernels", {}).items()
    ]
    compared = [test for test in report["tests"] if "kernel" in test["properties"]]
    if compared:
        head = "| kernel | case | largest difference / spread | off, ms | on, ms |"
        lines += ["", head, "|---|---|---|---|---|"]
    for test in compared:
        found = test["properties"]
        times = [found.get(name, "not timed") for name in ("off_ms", "on_ms")]
        cells = [found["kernel"], test["name"], found["difference"], *times]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def summary_lines(report: dict[str, Any]) -> list[str]:
    """What the steps and tests came to, and what that does not say."""
    steps = [step["outcome"] for step in report["steps"]]
    tests = [test["outcome"] for test in report["tests"]]
    passed, skipped = tests.count("passed"), tests.count("skipped")
    lines = [
        f"* Result: {steps.count('done')} of {len(steps)} steps done; {passed} tests "
        f"passed, {len(tests) - passed - skipped} failed, {skipped} skipped"
    ]
    if "out of time" in steps:
        lines.append(
            "* A step was ended at its share of the time: what it had not reached is "
            "not in this report, and did not fail; give more time with `--minutes`"
        )
    if report.get("machine", {}).get("platform") == "cpu":
        lines.append(
            "* No accelerator was found: the steps ran on the CPU, at small sizes; no "
            "number here says anything about an accelerator"
        )
    return lines


def markdown(
    report: dict[str, Any],
    curves: dict[str, dict[str, list[tuple[float, float]]]],
    out: Path,
) -> str:
    """The report for reading."""
    lines = ["# Accelerator check", "", *summary_lines(report)]
    machine = report.get("machine")
    if machine is not None:
        memory = report["memory_bytes"]
        held = f", {memory / 2**30:.1f} GiB each" if memory else ""
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        lines += [
            f"* Devices: {len(report['devices'])} x {machine['device']}{held}",
            f"* Host: {machine['processor']}, {machine['cores']} cores, "
            f"{machine['system']}",
            f"* Versions: Python {machine['python']}, {versions}",
            f"* Command: `{report['command']}`",
        ]
    lines += ["", "## Steps", "", "| step | outcome | seconds |", "|---|---|---|"]
    lines += [
        f"| {step['name']} | {step['outcome']} | {step['seconds']:.0f} |"
        for step in report["steps"]
    ]
    for step in report["steps"]:
        if step["outcome"] != "done":
            log = (out / f"{step['name']}.log").read_text(errors="replace")
            last = log.strip().splitlines()[-3:]
            lines += ["", f"{step['name']}.log ends with:", "", "```text", *last, "```"]
    if report["tests"]:
        lines += ["", "## Tests", "", "| test | outcome | seconds |", "|---|---|---|"]
        for test in report["tests"]:
            note = test["message"].replace("|", "\\|")[:LIMIT]
            outcome = f"{test['outcome']}: {note}" if note else test["outcome"]
            seconds = "" if test["seconds"] is None else f"{test['seconds']:.1f}"
            lines.append(f"| {test['name']} | {outcome} | {seconds} |")
    lines += kernel_lines(report)
    if curves:
        lines += ["", "## Decodes", "", "![Decodes](decodes.png)"]
    for preset, kinds in curves.items():
        lines += [
            "",
            f"### {preset}, {report['bench'][preset]['parameters']:,} parameters",
            "",
            "| decode | tokens per forward pass | tokens per second | against token by "
            "token |",
            "|---|---|---|---|",
        ]
        base = kinds.get("token by token", [(1.0, 0.0)])[0][1]
        for kind, points in kinds.items():
            for per_forward, rate in points:
                ratio = f"{rate / base:.2f}" if base else ""
                lines.append(f"| {kind} | {per_forward:.1f} | {rate:.1f} | {ratio} |")
        lines += ["", f"All lines and bounds: [bench](bench-{preset}/bench.md)."]
    plan = out / "plan" / "plan.md"
    if plan.exists():
        lines += ["", "## Predicted and measured", "", plan.read_text().strip()]
    return "\n".join(lines) + "\n"
