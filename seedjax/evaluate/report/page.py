"""The report as one HTML file: `templates/page.html`, with its style, its script and
the values of a report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from seedjax.evaluate.report.table import HEAD, cells, problems_of, remarks
from seedjax.evaluate.report.writer import read_template, render


def make_page(
    found: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, str],
) -> str:
    """The page.

    Args:
      found: the report, as `report.report` makes it.
      runs: what the browser shows, as `report.browsed` makes it.
      pictures: SVG by name ("quality", "beside"); empty ones are left out.
    """
    from markupsafe import Markup

    # As "<" is the only way into markup, no text can end the element that holds it.
    data = json.dumps(runs, ensure_ascii=True).replace("<", "\\u003c")
    return render(
        "page.html",
        style=Markup(read_template("page.css")),
        script=Markup(read_template("page.js")),
        data=Markup(data),
        quality=Markup(pictures.get("quality", "")),
        beside=Markup(pictures.get("beside", "")),
        head=HEAD,
        scores=[cells(entry) for entry in found["runs"]],
        remarks=[remark for entry in found["runs"] for remark in remarks(entry)],
        devices=sorted({_device(entry["machine"]) for entry in found["runs"]}),
        curves=[
            (curve["suite"], curve["model"], f"{curve['aup']:.1f}")
            for curve in found["curves"]
        ],
        cards=[_card(column) for column in found["beside"]],
        speeds=[
            (each["system"], f"{each['tokens_per_second']:.0f}", each["condition"])
            for each in found["speeds"]
        ],
        settings=[
            {
                "title": f"{entry['settings']['suite']}: {entry['model']}, "
                f"{entry['recipe']}: {entry['title']}",
                "record": json.dumps(entry["settings"], indent=1),
            }
            for entry in found["runs"]
        ],
    )


def _device(machine: Mapping[str, Any]) -> str:
    if not machine:
        return "answers of another system"
    return (
        f"{machine['devices']} x {machine['device']}, {machine['cpus']} processors, "
        f"jax {machine['jax']}"
    )


def _card(column: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark's printed scores, with ours first."""
    ours = [(name, f"{o['score']:.1f}") for name, o in column["ours"].items()]
    printed = [(name, f"{s:.1f}") for name, s in column["printed"].items()]
    counts = {problems_of({"left_out": {}} | o) for o in column["ours"].values()}
    here = f"Here over {' or '.join(sorted(counts))} problems."
    return {
        "title": column["title"],
        "rows": ours + printed,
        "ours": len(ours),
        "condition": f"{column['condition']}. {column['source']}. {here}",
        "notes": [f"{name}: {note}." for name, note in column["misprints"].items()],
    }
