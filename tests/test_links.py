"""What a step sends, against collectives counted by hand."""

import pytest

from scripts.links import NETWORKS, Link, main, seconds, traffic

GPT2 = NETWORKS[0]


def test_two_processes():
    """Of two, each sends half an all-gather's bytes."""
    weights = 4 * 124e6
    assert traffic(GPT2, "ddp", 2, 8) == (pytest.approx(weights), 2)
    assert traffic(GPT2, "fsdp", 2, 8) == (pytest.approx(1.5 * weights), 39)
    states = 4 * 8 * 1024 * 768
    # Four all-reduces of the states, two all-gathers of three times as much, in twelve blocks.
    assert traffic(GPT2, "tensor_parallel", 2, 8) == (pytest.approx(12 * 7 * states), 120)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "tensor_parallel"])
def test_one_process_sends_nothing(strategy):
    assert traffic(GPT2, strategy, 1, 8) == (0, 0)


def test_time_and_table(capsys):
    assert seconds(10.0, 3, Link("wire", 5.0, 0.5)) == 3.5
    main(["--processes", "2", "--rows", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert "| GPT-2 124M | `ddp` | 0.5 GB | 2 ms | 20 ms | 40 ms | 397 ms |" in lines
    with pytest.raises(ValueError, match="strategy must be one of"):
        traffic(GPT2, "magic", 2, 8)
