"""Which parts of a model are components: a small language, `KIND[:LAYERS[/UNITS]]` with commas between, such as `heads:10-17,mlp:all,neurons:12/0-255`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from raysp.errors import UserError
from raysp.game import Component
from raysp.models.ablation import Part
from raysp.models.architecture import Architecture, Block

Kind = Literal["heads", "neurons", "mlp", "blocks"]
#: Accepted names of each kind.
NAMES: Mapping[str, Kind] = {
    "heads": "heads", "head": "heads", "neurons": "neurons", "neuron": "neurons", "mlp": "mlp", "mlps": "mlp", "blocks": "blocks", "block": "blocks",
}  # fmt: skip
LIKE = "write for example heads, heads:10-17, heads:3/0-4, mlp:all, blocks:20 or neurons:12/0-255, with commas between"
#: Maximum number of components; no budget explores more.
MOST = 100_000
_PART = re.compile(r"(?P<kind>[a-z]+)(:(?P<layers>all|[\d-]+))?(/(?P<units>all|[\d-]+))?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Components in layer-major order, and the part of the model that each is."""

    components: tuple[Component, ...]
    parts: tuple[Part, ...]


def select(text: str, layers: str | None, group: int, architecture: Architecture, tokens: int = 1) -> Chosen:
    """The components that a selection names in a model, restricted to `layers` if given. Raises UserError for parts that the model lacks, listing those it has.

    `tokens` is the size of each component, in tokens that removing it touches.
    """
    wanted = set(range(architecture.layers)) if layers is None else set(_layer_list(layers, architecture))
    parts: dict[Part, Kind] = {}
    for piece in (piece.strip() for piece in text.split(",")):
        matched = _PART.fullmatch(piece)
        if matched is None or matched["kind"] not in NAMES:
            raise UserError("components", text, f"contains {piece!r}, which names nothing", LIKE)
        kind = NAMES[matched["kind"]]
        _check_group(kind, group, text)
        found = numbers_of("components", text, matched["layers"], architecture.layers, f"layers 0 to {architecture.layers - 1}")
        for layer in (number for number in found if number in wanted):
            units = _units(kind, matched["units"], architecture.blocks[layer], layer, text)
            parts |= dict.fromkeys(_parts(kind, layer, units, group, architecture.blocks[layer]), kind)
    _check(parts, text, layers, architecture)
    ordered = sorted(parts, key=lambda part: (part.layer, get_args(Kind).index(parts[part]), part.start))
    components = tuple(_component(number, part, architecture.blocks[part.layer], tokens) for number, part in enumerate(ordered))
    return Chosen(components, tuple(ordered))


def _layer_list(layers: str, architecture: Architecture) -> list[int]:
    there = f"layers 0 to {architecture.layers - 1}"
    return [number for piece in layers.split(",") for number in numbers_of("layers", layers, piece.strip(), architecture.layers, there)]


def numbers_of(name: str, whole: str, text: str | None, count: int, there: str) -> list[int]:
    """The numbers denoted by `3`, `3-7` or `all`, out of `count`."""
    if text in (None, "all"):
        return list(range(count))
    matched = re.fullmatch(r"(\d+)(?:-(\d+))?", text or "")
    if matched is None:
        raise UserError(name, whole, f"contains {text!r}, which is not a range", "write 3, 3-7 or all")
    first, last = int(matched[1]), int(matched[2] or matched[1])
    if first > last or last >= count:
        problem = "is a range that ends before it begins" if first > last else "does not exist"
        raise UserError(name, whole, f"{text} {problem}", f"the model has {there}")
    return list(range(first, last + 1))


def _check_group(kind: Kind, group: int, text: str) -> None:
    if group > 1 and kind != "neurons" and "neuron" not in text:
        raise UserError("group", group, "groups neurons, and no neurons are among the components", "leave it out, or choose neurons")


def _units(kind: Kind, units: str | None, block: Block, layer: int, text: str) -> list[int]:
    """The heads or neurons of a layer that a selection denotes."""
    if kind == "blocks":
        count, what = 1, "one block"
    elif kind == "heads":
        if block.attention is None:
            raise UserError("components", text, f"names heads of layer {layer}, where no projection of heads was found", "choose mlp, blocks or other layers")
        count, what = block.heads, f"heads 0 to {block.heads - 1} in layer {layer}"
    else:
        if block.mlp is None:
            raise UserError(
                "components", text, f"names the MLP of layer {layer}, whose neurons were not found (a mixture of experts?)", "choose heads or blocks"
            )
        count, what = (1, "one MLP a layer") if kind == "mlp" else (block.neurons, f"neurons 0 to {block.neurons - 1} in layer {layer}")
    if units is not None and kind in ("mlp", "blocks"):
        raise UserError("components", text, f"asks for units /{units} of {kind}, which have none", LIKE)
    return numbers_of("components", text, units, count, what)


def _parts(kind: Kind, layer: int, units: Sequence[int], group: int, block: Block) -> list[Part]:
    if kind == "heads":
        return [Part(layer, "heads", unit * block.head_width, (unit + 1) * block.head_width) for unit in units]
    if kind == "neurons":
        return [Part(layer, "neurons", units[at], units[min(at + group, len(units)) - 1] + 1) for at in range(0, len(units), group)]
    return [Part(layer, "mlp" if kind == "mlp" else "block", 0, 1)]


def _check(parts: dict[Part, Kind], text: str, layers: str | None, architecture: Architecture) -> None:
    if len(parts) < 2:
        found = f"{len(parts)} component{'' if len(parts) == 1 else 's'}"
        limited = f" of layers {layers}" if layers is not None else ""
        raise UserError("components", text, f"names {found}{limited}, and at least two are needed", f"the model has {architecture.layers} layers; {LIKE}")
    if len(parts) > MOST:
        raise UserError("components", text, f"names {len(parts):,} components", f"give fewer than {MOST:,}, for example with a larger group")
    taken: dict[tuple[int, str, int], Part] = {}
    for part in parts:
        for channel in range(part.start, part.stop) if part.site == "neurons" else (part.start,):
            if (other := taken.setdefault((part.layer, part.site, channel), part)) != part:
                problem = f"names neurons of layer {part.layer} twice, in {other.start}-{other.stop - 1} and {part.start}-{part.stop - 1}"
                raise UserError("components", text, problem, "write ranges that do not overlap")


def _component(number: int, part: Part, block: Block, tokens: int) -> Component:
    kind = {"heads": "head", "neurons": "neurons", "mlp": "mlp", "block": "block"}[part.site]
    unit = part.start // block.head_width if part.site == "heads" else part.start if part.site == "neurons" else None
    name = {"heads": f"H{unit}", "mlp": " MLP", "block": " block"}.get(
        part.site, f" N{part.start}" + (f"-{part.stop - 1}" if part.stop - part.start > 1 else "")
    )
    return Component(number, f"L{part.layer}{name}", kind, size=tokens, layer=part.layer, unit=unit)
