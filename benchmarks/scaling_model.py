"""What 8 to 1,024 GPUs would bring: computed from one GPU's step, the gradients and the links.

    python -m benchmarks.scaling_model --step-ms 15.2 --images 128 [--link ib-400] [--batch 1024]

Nothing here is measured but what is given. The cost of sending n bytes over one link is taken as
a + n / b, with a latency a and a bandwidth b (Thakur, Rabenseifner and Gropp, "Optimization of
Collective Communication Operations in MPICH", Int. J. High Perform. Comput. Appl. 19 (2005) 49).
For G bytes of gradients, N GPUs, g of them a node, M = N / g nodes, with links inside a node
(a_i, b_i) and all links of a node to the outside together (a_o, b_o):

    ring          2 (N - 1) / N * (G / min(b_i, b_o) + (N - M) a_i + M a_o)    M = 0 in one node
    hierarchical  2 ((g - 1) / g * G / b_i + (g - 1) a_i)      reduce-scatter, all-gather inside
                  + 2 ((M - 1) / M * G / b_o + log2(M) a_o)    halving and doubling outside

A ring sends every byte 2 (N - 1) / N times past each GPU (Patarasuk and Yuan, J. Parallel
Distrib. Comput. 69 (2009) 117); the sum between the nodes is Rabenseifner's (Thakur et al.,
section 4.5). DDP sends the gradients in buckets while the backward pass goes on; what is seen of T
seconds is

    max(T - overlap * backward, T * last bucket)

and efficiency is the time of one GPU's step over that of N: step / (step + what is seen).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import save

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
MOST_GPUS = 2**20
LIMITS = (0.9, 0.5)
PARAMETERS = 23_528_522  # of ResNet-50 with ten classes


@dataclass(frozen=True)
class Link:
    """GB/s and seconds of latency, inside a node and of all of a node's ports together."""

    name: str
    inside: float
    inside_latency: float
    outside: float
    outside_latency: float
    gpus_per_node: int = 8


# Inside: bus bandwidth of NCCL's ring on 8 H200, 366 GB/s at 8 GiB (stas00/ml-engineering,
# network), less for 94 MB; PCIe 4 x 16. Outside: the ports' rates less a tenth. Latencies:
# estimates.
LINKS = {
    "ib-400": Link("NVLink; eight 400 Gb/s InfiniBand ports a node", 350, 3e-6, 360, 5e-6),
    "ib-200": Link("NVLink; one 200 Gb/s InfiniBand port a node", 350, 3e-6, 22.5, 5e-6),
    "eth-100": Link("NVLink; one 100 Gb/s Ethernet port a node", 350, 3e-6, 11.25, 25e-6),
    "pcie-eth-100": Link("PCIe 4; one 100 Gb/s Ethernet port a node", 20, 8e-6, 11.25, 25e-6),
}


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted; it is printed with every table.

    `backward_share`: of a step. `overlap`: share of the backward pass during which gradients can
    travel. `last_bucket`: share of the gradients that is ready only when the backward pass is over:
    of ResNet-50 the last of DDP's buckets of 25 MiB holds 9.7 MB of 94.1, from the first block of
    the third stage to the stem. `least_step_s`: a step of however few images.
    """

    backward_share: float = 2 / 3
    overlap: float = 0.9
    last_bucket: float = 0.103
    least_step_s: float = 0.0


def all_reduce_seconds(link: Link, gpus: int, num_bytes: float, way: str) -> float:
    """Seconds to sum `num_bytes` of every GPU on every GPU, as a 'ring' or 'hierarchical'."""
    per_node = min(gpus, link.gpus_per_node)
    nodes = gpus / per_node
    inside, outside = num_bytes / (link.inside * 1e9), num_bytes / (link.outside * 1e9)
    if way == "ring":
        slowest = max(inside, outside) if nodes > 1 else inside
        crossing = nodes if nodes > 1 else 0
        hops = (gpus - crossing) * link.inside_latency + crossing * link.outside_latency
        return 2 * (gpus - 1) / gpus * (slowest + hops)
    within = (per_node - 1) / per_node * inside + (per_node - 1) * link.inside_latency
    between = (nodes - 1) / nodes * outside + math.log2(nodes) * link.outside_latency
    return 2 * (within + between)


def seen_seconds(sent: float, step: float, given: Assumptions) -> float:
    """What a step is longer by when its gradients travel for `sent` seconds."""
    hidden = given.overlap * given.backward_share * step
    return max(sent - hidden, sent * given.last_bucket)


def efficiency(
    step: float, link: Link, gpus: int, num_bytes: float, way: str, given: Assumptions
) -> float:
    """Speed of `gpus` over that many times the speed of one, whose step takes `step` seconds."""
    sent = all_reduce_seconds(link, gpus, num_bytes, way)
    return step / (step + seen_seconds(sent, step, given))


def fixed_batch(
    step: float,
    images: int,
    batch: int,
    link: Link,
    gpus: int,
    num_bytes: float,
    given: Assumptions,
) -> float:
    """The same where `batch` images a step are shared by all GPUs; the way is hierarchical.

    Args:
        step: seconds of one GPU's step on `images` images, to which a step is proportional.
        images: of that step.
        batch: images of a step over all GPUs.
        link: between them.
        gpus: how many there are.
        num_bytes: of the gradients.
        given: what is taken for granted.
    """
    whole = step / images * batch
    share = max(given.least_step_s, whole / gpus)
    sent = all_reduce_seconds(link, gpus, num_bytes, "hierarchical")
    return whole / (gpus * (share + seen_seconds(sent, share, given)))


def falls_below(limit: float, efficiency_of: Callable[[int], float]) -> int | str:
    """The first power of two of GPUs, from 8, with less efficiency than `limit`.

    'never' where there is none up to a million; '-' where efficiency is not a number before.
    """
    gpus = 8
    while gpus <= MOST_GPUS:
        found = efficiency_of(gpus)
        if math.isnan(found):
            return "-"
        if found < limit:
            return gpus
        gpus *= 2
    return "never"


def predict(
    step: float,
    images: int,
    batch: int,
    link: Link,
    given: Assumptions,
    parameters: int = PARAMETERS,
) -> dict[str, Any]:
    """The whole table: efficiency by number of GPUs, and where it falls below the limits."""
    fp32, bf16 = 4.0 * parameters, 2.0 * parameters
    ways = {
        f"{images} images a GPU, ring, fp32": lambda n: efficiency(
            step, link, n, fp32, "ring", given
        ),
        f"{images} images a GPU, hierarchical, fp32": lambda n: efficiency(
            step, link, n, fp32, "hierarchical", given
        ),
        f"{images} images a GPU, hierarchical, bf16": lambda n: efficiency(
            step, link, n, bf16, "hierarchical", given
        ),
        f"{batch} images over all, hierarchical, bf16": lambda n: (
            fixed_batch(step, images, batch, link, n, bf16, given) if n <= batch // 2 else math.nan
        ),
    }
    return {
        "link": link.name,
        "step_ms": round(1e3 * step, 3),
        "images_a_gpu": images,
        "gradient_mb": {"fp32": round(fp32 / 1e6, 1), "bf16": round(bf16 / 1e6, 1)},
        "assumptions": vars(given) | {"link": vars(link)},
        "efficiency": {
            name: {str(gpus): rounded(of(gpus)) for gpus in GPUS} for name, of in ways.items()
        },
        "falls_below": {
            name: {f"{limit:.0%}": falls_below(limit, of) for limit in LIMITS}
            for name, of in ways.items()
        },
    }


def rounded(value: float) -> float | None:
    """For JSON, which has no word for what is not a number."""
    return None if math.isnan(value) else round(value, 4)


def table_of(found: dict[str, Any]) -> Table:
    """The prediction for people, with what it takes for granted."""
    title = f"computed, not measured: {found['link']}, {found['step_ms']} ms a step on one GPU"
    table = Table("GPUs", *found["efficiency"], title=title)
    for gpus in map(str, GPUS):
        values = [row[gpus] for row in found["efficiency"].values()]
        table.add_row(gpus, *("-" if value is None else f"{value:.1%}" for value in values))
    for limit in (f"{limit:.0%}" for limit in LIMITS):
        ends = [row[limit] for row in found["falls_below"].values()]
        table.add_row(f"< {limit} from", *map(str, ends))
    given = found["assumptions"]
    table.caption = (
        f"taken for granted: {found['gradient_mb']['fp32']} MB of gradients in fp32; the backward "
        f"pass is {given['backward_share']:.0%} of a step; gradients travel during "
        f"{given['overlap']:.0%} of it; the last {given['last_bucket']:.1%} of them after it; "
        "nobody else uses the links, every GPU is equally fast, and loading costs nothing"
    )
    return table


def main() -> None:
    """Print and write the table for one measured step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--step-ms", type=float, required=True, help="of one GPU, measured")
    parser.add_argument("--images", type=int, required=True, help="of that step")
    parser.add_argument("--batch", type=int, default=1024, help="images where all GPUs share them")
    parser.add_argument("--least-step-ms", type=float, default=0.0, help="of however few images")
    parser.add_argument("--link", nargs="+", choices=LINKS, default=["ib-400", "eth-100"])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    given = Assumptions(least_step_s=args.least_step_ms / 1e3)
    tables = [
        predict(args.step_ms / 1e3, args.images, args.batch, LINKS[link], given)
        for link in args.link
    ]
    console = Console()
    for found in tables:
        console.print(table_of(found))
    if args.output:
        save(args.output, "benchmarks.scaling_model", (), computed_not_measured=tables)


if __name__ == "__main__":
    main()
