"""``python -m scripts.links``: what a training step sends over the links between devices.

Bytes that each of N processes sends in a step, and their time at a link's bandwidth and latency, by
calculation. An all-reduce of V bytes on a ring sends 2 V (N - 1) / N in 2 (N - 1) messages, an
all-gather or a reduce-scatter half of it (Patarasuk and Yuan, 2009). P weights in L blocks, a batch
of B rows of T tokens of width D, all numbers of ``width`` bytes:

* ``ddp``: one all-reduce of the gradients, P numbers.
* ``fsdp``: each block's weights gathered for the forward and for the backward pass, its gradients
  reduced and scattered.
* ``tensor_parallel``: in each block two all-reduces of B T D numbers forward and two backward, and
  the exchange of 3 B T D projections each way. The rows are those of the whole batch.

Nothing is overlapped with the arithmetic: what is hidden behind it costs less than is said here.
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple


class Network(NamedTuple):
    """A transformer: weights P, blocks L, width D, tokens T of a row."""

    name: str
    num_weights: float
    num_blocks: int
    d_model: int
    length: int


class Link(NamedTuple):
    """A link: bytes per second that a device sends, and seconds before the first arrives."""

    name: str
    bandwidth: float
    latency: float


NETWORKS = (
    Network("GPT-2 124M", 124e6, 12, 768, 1024),
    Network("GPT-2 1.5B", 1.56e9, 48, 1600, 1024),
)
LINKS = (
    Link("NVLink, 300 GB/s", 300e9, 5e-6),
    Link("PCIe 4, 25 GB/s", 25e9, 10e-6),
    Link("100 Gbit Ethernet", 12.5e9, 20e-6),
    Link("10 Gbit Ethernet", 1.25e9, 50e-6),
)
STRATEGIES = ("ddp", "fsdp", "tensor_parallel")


def traffic(
    network: Network, strategy: str, processes: int, num_rows: int, width: int = 4
) -> tuple[float, int]:
    """Bytes that a process sends in a step, and messages that wait for each other.

    Args:
        network: The network.
        strategy: One of :data:`STRATEGIES`.
        processes: Number N of processes.
        num_rows: Rows B of the whole batch.
        width: Bytes of a number.

    Raises:
        ValueError: For another strategy.
    """
    hops = processes - 1
    share = hops / processes
    weights = network.num_weights * width
    states = num_rows * network.length * network.d_model * width
    if strategy == "ddp":
        return 2 * weights * share, 2 * hops
    if strategy == "fsdp":
        return 3 * weights * share, 3 * hops * (network.num_blocks + 1)
    if strategy == "tensor_parallel":
        reduced, exchanged = 4 * 2 * states, 2 * 3 * states
        return network.num_blocks * (reduced + exchanged) * share, network.num_blocks * 10 * hops
    raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")


def seconds(sent: float, messages: int, link: Link) -> float:
    """Time of a step's traffic on a link."""
    return sent / link.bandwidth + messages * link.latency


def table(processes: int, num_rows: int) -> str:
    """Markdown table of bytes and times."""
    names = " | ".join(link.name for link in LINKS)
    lines = [f"| network | strategy | sent | {names} |", "|---|---|---:|" + "---:|" * len(LINKS)]
    for network in NETWORKS:
        for strategy in STRATEGIES:
            sent, messages = traffic(network, strategy, processes, num_rows)
            times = (f"{1e3 * seconds(sent, messages, link):,.0f} ms" for link in LINKS)
            row = (network.name, f"`{strategy}`", f"{sent / 1e9:.1f} GB", *times)
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64, help="rows of the whole batch")
    options = parser.parse_args(args)
    print(table(options.processes, options.rows))


if __name__ == "__main__":
    main()
