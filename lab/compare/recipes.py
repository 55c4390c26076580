"""What a comparison knows beside recipes: their groups, committed allocations, packed models as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import zoo
from lab.errors import InputError
from quant import recipes, registry
from quant.recipes import CHANGE, Recipe

if TYPE_CHECKING:
    from torch import nn

    from quant.plans.ledger import Ledger

FULL = "full-precision"
OTHER_SEED = "full-precision, other seeds"
ALL = "all-ptq"
POLICY = "packed"
_FILE, _CONFIG = "model.safetensors", "config.yaml"


def allocations(model: str) -> dict[str, str]:
    """Return the committed bit allocations of a shipped denoiser, name and file (`brainlab allocate`)."""
    folder = zoo.HOME / "allocations" / model
    shipped = bool(model) and Path(model).name == model
    return {file.stem: str(file) for file in sorted(folder.glob("*.yaml"))} if shipped else {}


def groups(model: str = "") -> dict[str, list[str]]:
    """Names of groups and their recipes.

    ``all-ptq`` is every preset that is made after training, without a distillation loop, and the model's
    committed allocations; the others are methods.
    """
    import quant

    trains = {name for name in quant.list_methods() if quant.get_method(name).info.trains}
    presets = [name for name in quant.list_presets() if quant.get_preset(name).method not in trains]
    return recipes.groups() | {ALL: list(dict.fromkeys([*presets, *allocations(model)]))}


def expand(words: str | Sequence[str], model: str = "", part: str | None = None) -> list[Recipe]:
    """Turn ``A,B,…`` with groups and wildcards into a model's recipes, each once, in that order.

    Folders of ``brainlab quantize`` and files of `quant.export` are recipes, too, and come last.

    Raises
    ------
    InputError
        A word is neither a recipe nor a group, matches nothing, or is given twice; a packed model of other
        weights.
    """
    given = words.split(",") if isinstance(words, str) else words
    stripped = [word.strip() for word in given]
    for word in stripped:
        refuse_changes(word)
    packed = [word for word in stripped if is_packed(word)]
    others = [word for word in stripped if word not in packed]
    found = open_packed(packed, model, part)
    if packed and not any(others):
        return found
    return recipes.expand(others, groups(model), allocations(model)) + found


@dataclass(frozen=True)
class Packed(Recipe):
    """A folder of ``brainlab quantize``, or a file of `quant.export`; goes by its path.

    Parameters
    ----------
    made_by : str
        The method, as the file's ledger says.
    digest : str
        Of header and tensors.
    """

    made_by: str = ""
    digest: str = ""

    @property
    def method(self) -> str:
        return self.made_by

    @property
    def policy(self) -> str:
        return POLICY

    @property
    def info(self) -> registry.MethodInfo:
        return registry.get_method(self.made_by).info

    @property
    def calibrates(self) -> bool:
        return False

    @property
    def trains(self) -> bool:
        return False

    def config(self) -> Any:
        """Return what tells it from another file under the same path; it has no settings."""
        return {"packed": self.digest}

    def load(self, model: nn.Module) -> Ledger:
        """Put it into a copy of the model that it was made from."""
        import quant

        return quant.load(self.preset, model)


def is_packed(word: str) -> bool:
    """Whether a word among recipes is a packed model's folder or file."""
    path = Path(word)
    return (path / _FILE).is_file() or (path.suffix == ".safetensors" and path.is_file())


def open_packed(words: Sequence[str], model: str, part: str | None = None) -> list[Recipe]:
    """Read the headers of packed models, each once.

    Raises
    ------
    InputError
        No file of `quant.export`; a folder whose ``config.yaml`` says that it was made from other weights.
    """
    import quant

    found: dict[str, Recipe] = {}
    for word in words:
        header = quant.read_header(word)
        made_by = str(header.ledger.get("method"))
        registry.get_method(made_by)  # refuses one that is not known here
        _refuse_other_weights(Path(word), model, part)
        packed = Packed(word, word, made_by=made_by, digest=header.digest)
        same = next((r.name for r in found.values() if r.config() == packed.config()), None)
        if same is not None:
            raise InputError(f"packed model {word!r} is given twice (as {same!r}); leave one away")
        found[word] = packed
    return list(found.values())


def refuse_changes(word: str) -> None:
    """Say so where somebody wants to change settings of a packed model, which has none."""
    head = word.split(CHANGE)[0]
    if head != word and is_packed(head):
        raise InputError(f"{word!r}: {head} is packed and has no settings to change; give its recipe instead")


def _refuse_other_weights(path: Path, model: str, part: str | None) -> None:
    from lab.models.opening import model_files
    from lab.models.weights import fingerprint
    from quant.io import read_yaml

    config = path / _CONFIG
    files = model_files(model, part)
    if not config.is_file() or files is None:
        return
    made = (read_yaml(config.read_text(encoding="utf-8")) or {}).get("made_from") or {}
    if made.get("model_hash") not in (None, fingerprint(files)):
        raise InputError(f"{path} was made from other weights than {model}: compare it with its own model")
