"""LoRA files on this machine: found by name, checked by their headers before anything is loaded.

    part (expert, name, strength) ──find──> file ──header──> keys ──match──> LoraUse

A name is the id of a LoRA in the catalog, or a path below `<models>/lora`. A file goes onto a model
when at least MIN_SHARE of its modules are there in the right shape: DiffSynth itself would put on
what fits and say nothing about the rest. Torch-free, so that the control plane can check as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from core import catalog
from core.catalog import Family, LoraRef, ModelRef, WeightFile
from core.config import CoreConfig
from core.errors import DiffboxError, InvalidParams, ModelMissing, Problem
from core.lora_keys import Guess, Keys, Pair, Shape, base_name, parse_keys, recognise, spellings
from core.weights import Fingerprints, check_safetensors, fingerprint_of, missing

Expert = Literal["high", "low", "transformer"]
EXPERTS: Final[tuple[Expert, ...]] = ("high", "low", "transformer")

FOLDER: Final = "lora"
MIN_SHARE: Final = 0.9
"""A file with less of its modules in the base model is for another one."""
STRENGTH_MAX: Final = 4.0
_NAME_MAX: Final = 300
_PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
# Wan 2.1 I2V reads the picture through CLIP as well, Wan 2.2 does not. LoRAs of the one are in use
# on the other; these modules then have nothing to go on and don't count against the file.
_IMAGE_BRANCH: Final = re.compile(r"(cross_attn[._][kv]_img|attn2[._]add_[kv]_proj|img_emb[._])")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraPart:
    """One file wanted on one expert. `place` is how messages call it: "lora[0].high".

    An empty place is a LoRA that the workflow puts on by itself.
    """

    place: str
    expert: Expert
    name: str
    strength: float

    @property
    def field(self) -> str:
        """The parameter that it comes from."""
        return self.place.partition("[")[0] or "model"

    def error(self, cls: type[DiffboxError], text: str) -> DiffboxError:
        """What is wrong with it, at its parameter."""
        message = f"{self.place}: {text}" if self.place else text
        return cls(message, problems=(Problem(field=self.field, message=message),))


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraUse:
    """A checked file on one expert, as a pipeline puts it on.

    `pairs` are by module of the base model; `left_out` counts the file's tensors that are not put
    on: biases and norms that some distilled files change as well, modules that the base lacks.
    """

    name: str
    expert: Expert
    strength: float
    path: Path
    pairs: Mapping[str, Pair]
    left_out: int
    fingerprint: Mapping[str, Any]

    def provenance(self) -> dict[str, Any]:
        """For the metadata of outputs; holds no local path."""
        row = {"name": self.name, "expert": self.expert, "strength": self.strength}
        left_out = {"left_out": self.left_out} if self.left_out else {}
        return {**row, **self.fingerprint, **left_out}


def check_name(name: str, family: Family, expert: Expert) -> str:
    """The name itself, if a LoRA can be called so.

    Raises:
        ValueError: no LoRA of the family, no safetensors file, or a path that leads elsewhere.
    """
    if len(name) > _NAME_MAX or not name.isprintable() or not name.strip():
        raise ValueError(f"{name[:40]!r} is not a name of at most {_NAME_MAX} printable characters")
    if ref := catalog.find_lora(name):
        _check_side(ref, family, expert)
        return name
    path = PurePosixPath(name)
    if path.suffix.lower() in _PICKLES:
        raise ValueError(
            f"{name!r} is a pickle checkpoint: loading one runs code that is hidden in it, so only "
            "safetensors files are taken"
        )
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{name!r} is neither a .safetensors file nor {_known(name, family)}")
    if path.is_absolute() or "\\" in name or ".." in path.parts:
        raise ValueError(f"{name!r} leads elsewhere: give a path below the folder {FOLDER}")
    return name


def _check_side(ref: LoraRef, family: Family, expert: Expert) -> None:
    if ref.family != family:
        raise ValueError(f"{ref.id!r} is for {', '.join(ref.models)}")
    if _file_of(ref, expert) is None:
        raise ValueError(f"{ref.id!r} has no file for the {expert} noise expert")


def _known(name: str, family: Family) -> str:
    ids = [ref.id for ref in catalog.LORAS if ref.family == family]
    close = get_close_matches(name, ids, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"one of {', '.join(ids)}{hint}" if ids else "the id of a LoRA: none is known"


def _file_of(ref: LoraRef, expert: Expert) -> WeightFile | None:
    return {"high": ref.high, "low": ref.low, "transformer": ref.file}[expert]


class LoraShelf:
    """The LoRA files of this machine.

    Args:
        config: where weights lie and fingerprints are kept.
    """

    def __init__(self, config: CoreConfig) -> None:
        self._models_dir = config.models_dir
        self._known = Fingerprints(config.data_dir)

    def uses(self, model: str, workflow: str, parts: Sequence[LoraPart]) -> tuple[LoraUse, ...]:
        """Everything that is wanted and what the workflow itself puts on, found and checked.

        Args:
            model: id of the base model, whose weights are here.
            workflow: id of the workflow; a part with the name of its own LoRA takes that one's
                place, which is how its strength is changed.
            parts: what the params want.

        Raises:
            ModelMissing: a file is not here, or damaged; says where it was looked for. Also where
                the base model is not here.
            InvalidParams: a file is for another model, or leads out of its folder.
        """
        row = _row(model, parts)
        if row is None:
            return ()
        bases: dict[Expert, Mapping[str, Shape]] = {}
        found = []
        for part in wanted_parts(row, workflow, parts):
            expert = _expert(row, part)
            if expert not in bases:
                bases[expert] = self._base(row, expert)
            if not bases[expert] and (absent := missing(row, self._models_dir)):
                raise absent
            found.append(self._use(row, part, expert, bases[expert]))
        return tuple(found)

    def check(
        self, model: str, workflow: str, parts: Sequence[LoraPart], *, all_here: bool
    ) -> None:
        """The same as far as it can be told from here.

        Args:
            model: id of the base model, whose weights may be elsewhere.
            workflow: id of the workflow.
            parts: what the params want.
            all_here: whether the place where the job will run sees the same files as we do.

        Raises:
            ModelMissing: a file is not there, or damaged.
            InvalidParams: a file is for another model, or leads out of its folder.
        """
        row = _row(model, parts)
        if row is None:
            return
        for part in wanted_parts(row, workflow, parts):
            expert = _expert(row, part)
            path = self._find(part)
            if path is None:
                if all_here and not _made_on_first_use(part):
                    raise self._missing(part)
                continue
            keys = _keys(part, path)
            if base := self._base(row, expert):
                _match(row, part, keys, base)
            else:
                _check_family(row, part, keys)

    def _use(
        self, row: ModelRef, part: LoraPart, expert: Expert, base: Mapping[str, Shape]
    ) -> LoraUse:
        path = self._find(part)
        if path is None:
            raise self._missing(part)
        keys = _keys(part, path)
        pairs = _match(row, part, keys, base)
        tensors = 2 * len(keys.pairs) + len(keys.halves) + len(keys.others)
        ref = catalog.find_lora(part.name)
        file = ref and _file_of(ref, part.expert)
        return LoraUse(
            name=part.name,
            expert=expert,
            strength=part.strength,
            path=path,
            pairs=pairs,
            left_out=tensors - 2 * len(pairs),
            fingerprint=fingerprint_of(path, file.repo if file else "", self._known),
        )

    def _find(self, part: LoraPart) -> Path | None:
        """The file behind a part's name; None when it is not here."""
        if ref := catalog.find_lora(part.name):
            file = _file_of(ref, part.expert)
            assert file is not None  # check_name
            return next(iter(catalog.locate(file, self._models_dir)), None)
        folder = self._models_dir / FOLDER
        try:
            path = (folder / part.name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise part.error(InvalidParams, f"{part.name!r} leads out of the folder {FOLDER}")
            return path if path.is_file() else None
        except (OSError, RuntimeError):  # a circle of links, a name that is too long
            return None

    def _missing(self, part: LoraPart) -> DiffboxError:
        folder = self._models_dir
        if ref := catalog.find_lora(part.name):
            file = _file_of(ref, part.expert)
            assert file is not None  # check_name
            side = f" for the {part.expert} noise expert" if ref.file is None else ""
            text = (
                f"{ref.title} is not complete on this machine. Missing: {file.repo}: "
                f"{file.pattern}{side}. Looked below {folder}/base/{file.repo}, "
                f"{folder}/{FOLDER}/{file.repo} and {folder}/{file.repo}"
            )
        else:
            text = f"there is no file {part.name!r} below {folder / FOLDER}"
        return part.error(ModelMissing, text)

    def _base(self, row: ModelRef, expert: Expert) -> Mapping[str, Shape]:
        """The linear modules of a base model, (out, in) by name; empty where it is not here."""
        shapes: dict[str, Shape] = {}
        for file in row.files:
            if file.role == expert:
                for path in catalog.locate(file, self._models_dir):
                    shapes |= check_safetensors(path).shapes
        return base_modules(shapes)


def base_modules(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The linear modules among a base model's tensors, named as DiffSynth's loader names them."""
    return {
        # WanVideoDiTStateDictConverter takes this prefix off; Qwen's files are taken as they are.
        name.removeprefix("model.").removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
    }


def wanted_parts(row: ModelRef, workflow: str, parts: Sequence[LoraPart]) -> tuple[LoraPart, ...]:
    """The workflow's own LoRA, where `parts` don't name it, and then the parts."""
    own = catalog.find_lora(row.loras.get(workflow, ""))
    if own is None:
        return tuple(parts)
    named = {part.expert for part in parts if part.name == own.id}
    added = [
        LoraPart(place="", expert=expert, name=own.id, strength=1.0)
        for expert in EXPERTS
        if expert not in named and _file_of(own, expert)
    ]
    return (*added, *parts)


def _row(model: str, parts: Sequence[LoraPart]) -> ModelRef | None:
    """None for a model that is in no catalog, as workflows from elsewhere may have."""
    row = next((row for row in catalog.MODELS if row.id == model), None)
    if row is None and parts:
        raise parts[0].error(InvalidParams, f"model {model!r} is not one that LoRAs go on")
    return row


def _expert(row: ModelRef, part: LoraPart) -> Expert:
    """Which of the model's experts a part goes on; `high` is the only one where there is one."""
    experts = [expert for expert in EXPERTS if any(file.role == expert for file in row.files)]
    if part.expert in experts:
        return part.expert
    if part.expert == "high" and len(experts) == 1:
        return experts[0]
    text = f"{row.title} has one expert only: give the file as `high`"
    raise part.error(InvalidParams, text)


def _made_on_first_use(part: LoraPart) -> bool:
    ref = catalog.find_lora(part.name)
    return ref is not None and ref.demo


def _keys(part: LoraPart, path: Path) -> Keys:
    """What is in a file; raises for one that holds no LoRA."""
    try:
        header = check_safetensors(path)
    except ModelMissing as error:
        raise part.error(ModelMissing, error.message) from None
    keys = parse_keys(header.shapes, header.metadata)
    if keys.kind != "LoRA":
        text = f"{part.name!r} is a {keys.kind}, which diffbox can't put on; only LoRA is taken"
        raise part.error(InvalidParams, text)
    if not keys.pairs:
        raise part.error(
            InvalidParams, f"{part.name!r} holds no LoRA: no pair of low-rank matrices"
        )
    return keys


def _match(row: ModelRef, part: LoraPart, keys: Keys, base: Mapping[str, Shape]) -> dict[str, Pair]:
    """The file's pairs by the base's modules.

    Raises:
        InvalidParams: too few of them are in the base.
    """
    share, pairs = match(keys, base, row.family)
    if share >= MIN_SHARE:
        return pairs
    guess = recognise(keys.pairs)
    text = (
        f"{part.name!r} does not go on {row.title}: {_percent(share)} of its modules are there, at "
        f"least {MIN_SHARE:.0%} are needed. It seems to be for {guess.title}"
    )
    raise part.error(InvalidParams, text)


def match(keys: Keys, base: Mapping[str, Shape], family: Family) -> tuple[float, dict[str, Pair]]:
    """How much of a file goes on a base model.

    Args:
        keys: the file's.
        base: (out, in) of the base's linear modules, by name.
        family: whose other spellings are tried as well.

    Returns:
        The share of the file's modules that are in the base in the same shape, 0 to 1, and their
        pairs by the base's names. A module with half a pair counts as one that is not there.
    """
    known = spellings(base, family)
    pairs: dict[str, Pair] = {}
    counted = len(keys.halves)
    for spelled, pair in keys.pairs.items():
        module = base_name(spelled, known)
        if module is None and family == "wan_video" and _IMAGE_BRANCH.search(spelled):
            continue
        counted += 1
        if module is not None and pair.fits(base[module]):
            pairs[module] = pair
    return (len(pairs) / counted if counted else 0.0), pairs


def _check_family(row: ModelRef, part: LoraPart, keys: Keys) -> None:
    """Without the base at hand: refuse what is clearly for another family."""
    guess: Guess = recognise(keys.pairs)
    if guess.known and guess.family != row.family:
        text = f"{part.name!r} does not go on {row.title}: it seems to be for {guess.title}"
        raise part.error(InvalidParams, text)


def _percent(share: float) -> str:
    """Rounded down, so that 89.9 % is not told as 90 %; but 0.29 is 29 %, whatever floats say."""
    return f"{int(share * 100 + 1e-9)}%"
