"""`seedjax plan`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError

if TYPE_CHECKING:
    from seedjax.plan.case import Case
    from seedjax.plan.figures import Figures


@options.writes("plan")
def plan(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Plans, such as sample-8b-h100; without one, lists them."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Plan a training config instead; takes --topology."),
    ] = None,
    topology: Annotated[
        str | None, typer.Option(help="Other chips: v5e:2x4, v6e:8x8, h100:8.")
    ] = None,
    mesh: Annotated[str | None, typer.Option(help="As for `seedjax train`.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the plans: batch_size=4."),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(help="A field that grows: num_layers=1,4,16 or prefix=2048,8192."),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            min=0, help="Compare meshes, remat and batches; compile the best so many."
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Predicted against measured on this machine."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write plan.json, plan.md, plan.png there.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compile for TPUs and GPUs that are not here, and say what would move and fit.

    Takes the compilers: pip install 'seedjax[plan]'. A plan of sampling compares a
    forward pass over a block with a step of autoregressive decoding. --set changes
    what is compiled: batch_size, length, prefix, num_layers, remat, weights, model.

    Example: seedjax plan sample-8b-h100 --set prefix=8192 --out runs/plan
    """
    if measure:
        options.refuse_others(
            {"measure", "out", "force", "json"},
            "--measure has plans of its own; drop {}",
        )
        _measure(out, json=json)
        return
    # The compilers are found by name; the devices of this machine are not used.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from seedjax.config import override
    from seedjax.files.package import package_table
    from seedjax.plan.case import case_of_config, named_cases

    if not names and config is None:
        streams.print_text("\n".join(package_table("seedjax.plan", "plans.toml")))
        return
    if config is not None and (names or topology is None):
        raise InputError(
            "--config takes --topology, such as v5e:2x4, and no name of a plan"
        )
    changes = [*(assignments or ())]
    changes += [] if topology is None else [f"topology={topology}"]
    changes += [] if mesh is None else [f"mesh={mesh}"]
    cases = [case for name in names or () for case in named_cases(name)]
    cases += [] if config is None else [case_of_config(str(config))]
    cases = [override(case, changes) for case in cases]
    if search is not None:
        if len(cases) > 1 and cases[0].program == "train" or over is not None:
            raise InputError("--search takes one plan, and no --over")
        _search(cases[0], search, out, json=json)
        return
    field = ""
    if over is not None:
        field, _, values = over.partition("=")
        cases = [
            override(case, [f"{field}={value}"])
            for case in cases
            for value in values.split(",")
        ]
    cases = [*dict.fromkeys(cases)]  # --set program=block leaves one of a pair
    _compile(cases, field, out, json=json)


def _compile(cases: "list[Case]", field: str, out: Path | None, *, json: bool) -> None:
    from seedjax.config import to_dict
    from seedjax.plan import report
    from seedjax.plan.figures import plan as compile_plan

    figures: list[Figures] = []
    with progress.bar() as bar:
        for number, case in enumerate(cases):
            bar(f"compiling {report.name_of(case)}", number, len(cases))
            figures.append(compile_plan(case))
        bar("compiled", len(cases), len(cases))
    growth = report.growth_table(figures, field) if field else ""
    tables = [growth, report.table(figures), report.sampling_table(figures)]

    def draw(target: Path) -> None:
        if field:
            report.plot_growth(figures, field, target)
        else:
            report.plot(figures, target)

    plans = [to_dict(each) for each in figures]
    _write(plans, [*tables, report.ASSUMPTIONS], draw, out, json=json)
    full = [each for each in figures if each.hbm_bytes > each.memory_size]
    if full:
        raise InputError(
            f"{report.name_of(full[0].case)} takes {full[0].hbm_bytes / 2**30:.1f} GiB "
            f"of {full[0].memory_size / 2**30:.1f}; more chips, fewer rows or shorter "
            "ones would fit"
        )


def _search(case: "Case", num_compiled: int, out: Path | None, *, json: bool) -> None:
    from seedjax.config import to_dict
    from seedjax.plan import report
    from seedjax.plan.search import search

    with progress.bar() as bar:
        found = search(case, num_compiled=num_compiled, report=bar)
    title = f"{report.name_of(case)}: alternatives"
    _write(
        [to_dict(each) for each in found],
        [title, report.search_table(found), report.ASSUMPTIONS],
        lambda target: report.plot_search(found, target),
        out,
        json=json,
    )


def _measure(out: Path | None, *, json: bool) -> None:
    options.start_jax(compile_cache=False)
    from seedjax.config import to_dict
    from seedjax.machine import describe_machine
    from seedjax.plan import report
    from seedjax.plan.measured import measure

    with progress.bar() as bar:
        found = measure(report=bar)
    machine = describe_machine()
    described = "; ".join(f"{name}: {value}" for name, value in machine.items())
    _write(
        [{"machine": machine, **to_dict(each), "ratio": each.ratio} for each in found],
        [described, report.measured_table(found)],
        lambda target: report.plot_measured(found, target),
        out,
        json=json,
    )


def _write(
    plans: list[Any],
    parts: list[str],
    draw: Callable[[Path], None],
    out: Path | None,
    *,
    json: bool,
) -> None:
    """Writes a folder if there is one, and prints the same."""
    from seedjax.files.text import write_json, write_text

    page = "\n\n".join(filter(None, parts)) + "\n"
    if out is not None:
        write_json(out / "plan.json", plans)
        write_text(out / "plan.md", page)
        draw(out / "plan.png")
    if json:
        streams.print_json({"plans": plans})
    else:
        streams.print_text(page.rstrip())
