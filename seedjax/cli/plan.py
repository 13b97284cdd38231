"""`seedjax plan`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from seedjax.cli import options, progress, streams
from seedjax.errors import InputError


@options.writes("plan")
def plan(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Plans, such as sample-8b-h100; without one, lists them."),
    ] = None,
    topology: Annotated[
        str | None, typer.Option(help="Other chips: v5e:2x4, v6e:8x8, h100:8.")
    ] = None,
    mesh: Annotated[str | None, typer.Option(help="As for `seedjax train`.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the plans: batch_size=4."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write plan.json, plan.md, plan.png there.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compile for TPUs and GPUs that are not here, and say what would move and fit.

    Takes the compilers: pip install 'seedjax[plan]'. A plan of sampling compares a
    forward pass over a block with a step of autoregressive decoding. --set changes
    what is compiled: batch_size, length, prefix, num_layers, weights, model.

    Example: seedjax plan sample-8b-h100 --set prefix=8192 --out runs/plan
    """
    # The compilers are found by name; the devices of this machine are not used.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from seedjax.config import override, to_dict
    from seedjax.files.package import package_table
    from seedjax.files.text import write_json, write_text
    from seedjax.plan import report
    from seedjax.plan.figures import named_cases
    from seedjax.plan.figures import plan as compile_plan

    if not names:
        streams.print_text("\n".join(package_table("seedjax.plan", "plans.toml")))
        return
    changes = [*(assignments or ())]
    changes += [] if topology is None else [f"topology={topology}"]
    changes += [] if mesh is None else [f"mesh={mesh}"]
    cases = [override(case, changes) for name in names for case in named_cases(name)]
    figures = []
    with progress.bar() as bar:
        for number, case in enumerate(cases):
            bar(f"compiling {report.name_of(case)}", number, len(cases))
            figures.append(compile_plan(case))
        bar("compiled", len(cases), len(cases))
    pages = [report.table(figures), report.sampling_table(figures), report.ASSUMPTIONS]
    page = "\n\n".join(filter(None, pages)) + "\n"
    if out is not None:
        write_json(out / "plan.json", [to_dict(each) for each in figures])
        write_text(out / "plan.md", page)
        report.plot(figures, out / "plan.png")
    if json:
        streams.print_json({"plans": [to_dict(each) for each in figures]})
    else:
        streams.print_text(page.rstrip())
    full = [each for each in figures if each.hbm_bytes > each.memory_size]
    if full:
        raise InputError(
            f"{report.name_of(full[0].case)} takes {full[0].hbm_bytes / 2**30:.1f} GiB "
            f"of {full[0].memory_size / 2**30:.1f}; more chips, fewer rows or shorter "
            "ones would fit"
        )
