"""What a real TPU compiler makes of the sampler at the shape of Stable-DiffCoder-8B,
without a TPU: bytes moved per chip, over the least that must be; memory; collectives;
copies of weights. Takes libtpu (`pip install 'seedjax[plan]'`).

    python scripts/plan_sampler.py                                  # the block forwards
    python scripts/plan_sampler.py --programs block sampler --json figures.json
    python scripts/plan_sampler.py --topologies v6e:2x2 --weights int8_weights

One process at a time: libtpu lets no second one in.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
import time
import typing
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from seedjax.config import to_dict
from seedjax.errors import InputError
from seedjax.nn.presets import preset
from seedjax.plan.figures import Case, plan, table
from seedjax.plan.programs import Weights

MESHES = {"v5e:2x4": "tensor=8", "v6e:2x2": "tensor=4"}  # others: --mesh


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--preset", default="stable_diffcoder_8b")
    parser.add_argument("--layers", type=int, help="instead of the preset's")
    parser.add_argument("--layer-loop", choices=["scan", "unroll"], default="scan")
    parser.add_argument("--block", type=int, default=32, help="block size")
    parser.add_argument("--topologies", nargs="+", default=list(MESHES))
    parser.add_argument(
        "--mesh", help="how chips share the work; by default a weight is split over all"
    )
    parser.add_argument(
        "--programs", nargs="+", default=["block"], choices=["block", "sampler"]
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=["bfloat16", "int8_weights"],
        choices=typing.get_args(Weights),
    )
    parser.add_argument("--prefixes", nargs="+", type=int, default=[2048, 32_768])
    parser.add_argument("--json", help="where to store the figures")
    parser.add_argument(
        "--page", help="a page whose table of figures is to be replaced"
    )
    return parser.parse_args()


def replace_table(page: Path, new: str) -> None:
    """Puts a table in place of the first one of a Markdown page."""
    before, rule, after = page.read_text().partition("| chips |")
    lines = (rule + after).splitlines(keepends=True)
    rest = itertools.dropwhile(lambda line: line.startswith("|"), lines)
    page.write_text(f"{before}{new}\n{''.join(rest)}")


def main() -> int:
    arguments = parse_arguments()
    config = preset(arguments.preset)
    config = dataclasses.replace(
        config,
        num_layers=arguments.layers or config.num_layers,
        layer_loop=arguments.layer_loop,
        block_size=arguments.block,
        max_positions=max(config.max_positions, 2 * max(arguments.prefixes)),
    )
    cases = [
        Case(
            topology=topology,
            mesh=arguments.mesh or MESHES.get(topology, ""),
            program=program,
            weights=weights,
            prefix=prefix,
        )
        for program, topology, weights, prefix in itertools.product(
            arguments.programs,
            arguments.topologies,
            arguments.weights,
            arguments.prefixes,
        )
    ]
    figures = []
    for case in cases:
        began = time.perf_counter()
        try:
            figures.append(plan(config, case))
        except InputError as error:
            print(f"{case}: {error}", file=sys.stderr)
            continue
        print(f"{case}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump([to_dict(each) for each in figures], file, indent=1)
                file.write("\n")
    print(table(figures))
    if arguments.page:
        replace_table(Path(arguments.page), table(figures))
    return 0 if len(figures) == len(cases) else 2


if __name__ == "__main__":
    sys.exit(main())
