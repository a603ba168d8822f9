"""What the parser and Lightning say: errors as one line, the rest only where it matters."""

import logging
import re
import warnings

# The other members of a union, and hints at the parser's own forms: no reason of the user's.
_NOISE = re.compile(
    r"$|Does not validate|Subtypes:|Errors:|Given value type:|Expected a path but|Subclass types "
    r"expect|a class path \(str\)|a dict with|Expected a <class 'NoneType'>"
)
_LONG = 80  # from here on a value is a whole section
# What YAML reads as another type although it is meant as a name: No, Off, 2020, null.
_UNQUOTED = re.compile(r"expected str, got (\[?(?:True|False|None|-?[\d.]+)\b)")
_QUOTE = """; quote a name that YAML reads as another type, as in '["No", "1"]'"""
_TYPE = re.compile(
    r"Expected an? (?:<class '(?:\w+\.)*(?P<type>\w+)'>|typing\.Literal\[(?P<words>.*)\]|"
    r"(?P<path>dot import path string))(?:[.:] (?:Got value: )?(?P<value>.*))?"
)


def one_line(message: str) -> str:
    """A message of several lines as one."""
    lines = [re.sub(r"^\s*(- )?", "", line).rstrip() for line in message.strip().splitlines()]
    if not lines or not lines[0].startswith(("Parser key", "Does not validate")):
        return " ".join(line for line in lines if line)
    keys: list[str] = []
    reasons: list[str] = []
    expected: list[str] = []
    value = None
    for line in lines:
        kind = _TYPE.fullmatch(line)
        if line.startswith("Parser key"):
            keys.append(line.split('"')[1])
            reasons += filter(None, [line.partition('":')[2].strip()])
        elif line.startswith("Given value: "):
            given = re.sub(r"NestedArg\(.*val='?(.*?)'?\)$", r"\1", line).removeprefix(
                "Given value: "
            )
            value = value or (given if len(given) < _LONG else None)
        elif _NOISE.match(line):
            continue
        elif kind:
            expected.append(kind["type"] or kind["words"] or "a class path")
            value = value or kind["value"]
        else:
            reasons.append(line)
    reason = " ".join(dict.fromkeys(reasons)).replace("init_args.", "")
    given = "" if value is None else f", got {value}"
    if not reason:
        reason = f"expected {' or '.join(dict.fromkeys(expected))}{given}"
    elif value is not None and value not in reason and "not accepted" not in reason:
        reason += given
    if _UNQUOTED.search(reason) and _QUOTE not in reason:
        reason += _QUOTE
    text = ": ".join([*dict.fromkeys(keys), reason])
    # Keys of nested parsers stand before the reason.
    return re.sub(r"^(?:[\w.]+: )+", lambda found: f"{found[0][:-2].replace(': ', '.')}: ", text)


def quiet() -> None:
    """Silences what says nothing to the user of the command."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # asked for
    for message in (
        # Metrics of a finished run stand beside a continued one on purpose.
        r".*logs directory .* exists and is not empty.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        # A loader of this project keeps the one batch that is to be overfitted by itself.
        r".*You requested to overfit but enabled .* dataloader shuffling.*",
        # The model makes batches of what a user's own datamodule gives, which overrides no hook.
        r".*You have overridden `on_before_batch_transfer` in `LightningModule`.*",
        # A graph without features has the nodes that its edges and targets name.
        r".*Unable to accurately infer 'num_nodes'.*",
        # The label propagation's matrix is made of checked edges.
        r".*Sparse invariant checks are implicitly disabled.*",
        # A run folder may be moved; its checkpoints stay beside its config.yaml.
        r".*The dirpath has changed from.*",
        # The launcher prepares sys.argv and passes it on.
        r".*LightningCLI's args parameter is intended.*",
        # A deprecation inside Lightning, of no concern to a user.
        r".*isinstance\(treespec, LeafSpec\).*",
        # A run of few batches is an ordinary run here.
        r".*number of training batches .* is smaller than the logging interval.*",
        # Sparse features and graphs; what is used of them is tested.
        r".*Sparse CSR tensor support is in beta state.*",
        # OrderedPredictions takes the row numbers from the loader itself.
        r".*Couldn't infer the batch indices.*",
        # jsonargparse tells which arguments a changed class drops; that is what was asked for.
        r".*discarding init_args.*",
    ):
        warnings.filterwarnings("ignore", message)
