"""Checked reading of graphs from tables: identifiers, features and edges, exactly as written."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files.notes import say
from datamodules.files.table_encoding import Encoding, codes_of, decide, numbers_of
from datamodules.files.tables import Column, Table, looks_missing, read_table

Array = np.ndarray[Any, Any]
Plan = list[dict[str, Any]]
Missing = Literal["error", "fill"]
WEIGHT = "weight"


class Reading(NamedTuple):
    """What a user says of the columns of features.

    Attributes:
        missing: Whether a missing value is an error or filled: a number with the column's median,
            beside a column that tells; a text as a value of its own.
        categorical: Columns of numbers that are names, beside all text columns.
    """

    missing: Missing = "error"
    categorical: Sequence[str] = ()


AS_WRITTEN = Reading()


class Edges(NamedTuple):
    """Edges of a graph, sorted and each once.

    Attributes:
        ends: Source and target of each edge, ``(2, E)``.
        weight: Weight of each edge, ``(E,)`` float64, or None.
        attributes: Features of each edge, ``(E, A)`` float64, or None.
        plan: How the features were encoded, plain data.
    """

    ends: Tensor
    weight: Tensor | None
    attributes: Tensor | None
    plan: Plan


def merged(
    index: Tensor,
    weight: Tensor | None,
    attributes: Tensor | None,
    num_nodes: int,
    directed: bool,
) -> tuple[Edges, "Repeats"]:
    """Edges each once, with their reverses unless directed; of repeated ones the mean.

    Args:
        index: Source and target of each edge, ``(2, E)``.
        weight: Weight of each edge, ``(E,)``, or None.
        attributes: Features of each edge, ``(E, A)``, or None.
        num_nodes: Number of nodes.
        directed: Whether an edge leads one way; else its reverse, with the same weight and
            features, is added.

    Returns:
        The edges, without a plan, and what was repeated.
    """
    from torch_geometric.utils import coalesce, to_undirected

    found = [value.double() for value in (weight, attributes) if value is not None]
    parts = [value if value.dim() > 1 else value.unsqueeze(1) for value in found]
    values = torch.cat(parts, dim=1) if parts else None
    again = repeats(index, values, num_nodes, directed)
    merge = coalesce if directed else to_undirected
    if values is None:
        return Edges(merge(index, num_nodes=num_nodes), None, None, []), again
    index, values = merge(index, values, num_nodes=num_nodes, reduce="mean")
    assert values is not None
    first = 0 if weight is None else 1
    rest = None if attributes is None else values[:, first:]
    return Edges(index, None if weight is None else values[:, 0], rest, []), again


class Repeats(NamedTuple):
    """Edges that are named more than once.

    Attributes:
        plain: Without any number: they count once.
        differing: With other numbers: their mean is taken.
    """

    plain: int
    differing: int


def repeats(index: Tensor, values: Tensor | None, num_nodes: int, directed: bool) -> Repeats:
    """How many edges are named again and lose by it.

    Args:
        index: Source and target of each edge, ``(2, E)``.
        values: Numbers of each edge, ``(E, A)``, or None.
        num_nodes: Number of nodes.
        directed: Whether an edge leads one way.
    """
    if values is None:
        ways = index[0] * num_nodes + index[1]
        return Repeats(len(ways) - len(torch.unique(ways)), 0)
    ends = index if directed else index.sort(0).values
    keys = ends[0] * num_nodes + ends[1]
    rows = torch.cat([keys.double().unsqueeze(1), values], dim=1)
    return Repeats(0, len(torch.unique(rows, dim=0)) - len(torch.unique(keys)))


def say_repeats(found: Sequence[Repeats], where: str) -> None:
    """Says once of all graphs where an edge is named again and something of it is lost."""
    plain, differing = (sum(counts) for counts in zip(*found, strict=True))
    if plain:
        say(
            f"{where}: {plain} edges are named again and count once; a column {WEIGHT!r} would "
            "count them"
        )
    if differing:
        say(f"{where}: {differing} edges are named again with other numbers; their mean is taken")


def column_plan(table: Table, names: Sequence[str], reading: Reading = AS_WRITTEN) -> Plan:
    """How columns become features: a number as it is, a text as an indicator of each value.

    Args:
        table: The table that decides.
        names: Columns of the features.
        reading: What the user says of them.

    Returns:
        Plain data, for :func:`encode` and for a checkpoint.
    """
    every = np.arange(len(table))
    return [_decided(table[name], every, reading).plain() for name in names]


def _decided(column: Column, rows: Array, reading: Reading) -> Encoding:
    categorical = column.name in reading.categorical or column.kind(True) == "category"
    if reading.missing == "error":
        _check_complete(column, categorical)
    return decide(column, rows, reading.missing, categorical)


def _check_complete(column: Column, categorical: bool) -> None:
    """Refuses a missing value, and among numbers what looks like one."""
    gone = column.where_cell(lambda cell: cell == "" or (not categorical and looks_missing(cell)))
    if not len(gone):
        return
    cell = column.text()[gone[0]]
    what = f"is {cell!r}, which looks like a missing value" if cell else "has no value"
    cure = "fill them in or use --data.missing fill"
    if cell:
        cure += f", or name {column.name!r} in --data.categorical"
    raise InputError(f"{column.at(int(gone[0]))} {what} ({len(gone)} missing in all); {cure}")


def encode(table: Table, plan: Plan, missing: Missing = "error") -> Array:
    """Features of a table's rows by a plan.

    Args:
        table: The rows.
        plan: How columns become features.
        missing: Whether a missing value is an error, also where the plan knows of none.

    Returns:
        Features, ``(rows, width)`` float64; a value that the plan does not know has no indicator.

    Raises:
        InputError: If a column is missing, or a number is none.
    """
    encodings = [Encoding(**entry) for entry in plan]
    table.require([encoding.name for encoding in encodings])
    parts, filled = [np.empty((len(table), 0))], []
    for encoding in encodings:
        column = table[encoding.name]
        if missing == "error" and not encoding.has_missing:
            _check_complete(column, encoding.kind == "category")
        if encoding.kind == "category":
            parts.append(_indicators(column, encoding))
            continue
        numbers, gone = numbers_of(column, encoding, "fill" if encoding.has_missing else missing)
        parts.append(numbers)
        filled += [gone] if gone else []
    if filled:
        where = f"{table.where}: {sum(filled)} missing numbers in {len(filled)} columns"
        say(f"{where} filled with medians")
    return np.concatenate(parts, axis=1)


def _indicators(column: Column, encoding: Encoding) -> Array:
    codes = codes_of(column, encoding, check=False)
    new = sorted(set(column.text()[codes < 0]))
    if new:
        say(f"{column.where}: {column.name!r} has new values ({new[0]!r}); read as no known one")
    return np.equal(codes[:, None], np.arange(encoding.num_levels)).astype(np.float64)


def read_edges(
    source: Any,
    ids: Sequence[str],
    nodes_path: str,
    directed: bool,
    plan: Plan | None = None,
    reading: Reading = AS_WRITTEN,
) -> Edges:
    """Edges of a table whose first two columns name nodes.

    Args:
        source: Path or frame; a column ``weight`` is optional, all others are features.
        ids: Identifiers of the nodes, in order.
        nodes_path: Where the identifiers come from, for messages.
        directed: Whether an edge leads one way; else its reverse is added.
        plan: How the features are encoded; decided by this table when None.
        reading: What the user says of the columns of features.

    Raises:
        InputError: Naming the row of an edge to a missing node or of a wrong weight.
    """
    table = read_table(source, header="first")
    names = list(table.columns)
    index = read_ends(table, ids, nodes_path)
    weight = _weights(table) if WEIGHT in names[2:] else None
    if plan is None:
        plan = column_plan(table, [name for name in names[2:] if name != WEIGHT], reading)
    attributes = torch.from_numpy(encode(table, plan, reading.missing)) if plan else None
    edges, again = merged(index, weight, attributes, len(ids), directed)
    say_repeats([again], table.where)
    return edges._replace(plan=plan)


def read_ends(table: Table, ids: Sequence[str], nodes_path: str) -> Tensor:
    """Nodes that the first two columns of a table name, ``(2, rows)``.

    Args:
        table: A row per pair of nodes.
        ids: Identifiers of the nodes, in order.
        nodes_path: Where the identifiers come from, for messages.

    Raises:
        InputError: If there are no two columns, no header or no rows, or naming the row of a
            missing node.
    """
    names, where = list(table.columns), table.where
    if len(names) < 2:
        raise InputError(f"{where} has one column; an edge needs two, its source and its target")
    number = {name: index for index, name in enumerate(ids)}
    if names[0] in number and names[1] in number:
        raise InputError(
            f"{where} has no header: its first row names the nodes {names[0]!r} and {names[1]!r}; "
            "add a row such as source,target above"
        )
    if len(table) == 0:
        raise InputError(f"{where} has no edges; without any, use a table model")
    return torch.stack([_ends(table[name], number, nodes_path) for name in names[:2]])


def _ends(column: Column, number: Mapping[str, int], nodes_path: str) -> Tensor:
    """Numbers of the nodes that a column names, ``(E,)``."""
    column.check_complete()
    cells = column.text()
    found = np.array([number.get(cell, -1) for cell in cells], dtype=np.int64)
    missing = np.flatnonzero(found < 0)
    if len(missing):
        row = int(missing[0])
        raise InputError(f"{column.at(row)} is {cells[row]!r}, no node of {nodes_path}")
    return torch.from_numpy(found)


def _weights(table: Table) -> Tensor:
    column = table[WEIGHT]
    values = column.numbers(complete=True)
    wrong = np.flatnonzero(values < 0)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{table.where}, row {table.row(row)}: weight {values[row]:g} is negative")
    return torch.from_numpy(values)


def node_ids(column: Column) -> list[str]:
    """Identifiers of the nodes, one per row, exactly as written.

    Raises:
        InputError: If one is missing or appears twice.
    """
    column.check_complete()
    ids: list[str] = column.text().tolist()
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        row = next(k for k, name in enumerate(ids) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{column.at(row)}: node {ids[row]!r} appears twice")
    return ids
