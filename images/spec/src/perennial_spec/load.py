"""Reading pipelines from their folders: `dags/pipelines/<name>/pipeline.yaml` and the code beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from perennial_spec.errors import PerennialError, PipelineNotFound, SpecError
from perennial_spec.pipeline import PipelineSpec
from perennial_spec.source import Source

SPEC_FILE = "pipeline.yaml"


@dataclass(frozen=True)
class Pipeline:
    """A spec, the folder that it was read from, and the digest of both."""

    spec: PipelineSpec
    folder: Path
    digest: str
    """SHA-256 over the spec as understood and every file that takes part in it; a comment in the YAML does not change it."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def features_file(self) -> Path:
        return self.folder / self.spec.model.features.rsplit(":", 1)[0]

    @property
    def features_function(self) -> str:
        return self.spec.model.features.rsplit(":", 1)[1]

    @property
    def query_file(self) -> Path | None:
        return self.folder / self.spec.data.query if self.spec.data.query else None


@dataclass(frozen=True)
class Broken:
    """A pipeline that cannot be read, and why."""

    folder: Path
    error: PerennialError


@dataclass(frozen=True)
class Catalogue:
    """All pipelines below a folder; a broken one never hides the others."""

    root: Path
    pipelines: tuple[Pipeline, ...]
    broken: tuple[Broken, ...] = ()

    def get(self, name: str) -> Pipeline:
        """The pipeline of that name.

        Raises:
            PipelineNotFound: there is none; names the nearest.
            SpecError: it is there and broken.
        """
        for pipeline in self.pipelines:
            if pipeline.name == name:
                return pipeline
        for broken in self.broken:
            if broken.folder.name == name:
                raise broken.error
        raise PipelineNotFound.of(name, [p.name for p in self.pipelines], str(self.root))


def load_pipeline(folder: Path) -> Pipeline:
    """Read one pipeline's folder.

    Raises:
        SpecError: with file, line, what was expected and the nearest valid word.
    """
    source = Source.read(folder / SPEC_FILE)
    try:
        spec = PipelineSpec.model_validate(source.value)
    except ValidationError as error:
        raise source.error(error, PipelineSpec) from None
    _need_files(source, spec, folder)
    return Pipeline(spec, folder, _digest(spec, folder))


def discover(root: Path) -> Catalogue:
    """Every pipeline in a folder of `root`, the good and the broken, in the order of their names.

    Two pipelines of one name are both broken: neither may silently win.
    """
    good: list[Pipeline] = []
    broken: list[Broken] = []
    for file in sorted(root.glob(f"*/{SPEC_FILE}")):
        try:
            good.append(load_pipeline(file.parent))
        except PerennialError as error:
            broken.append(Broken(file.parent, error))
    names = [pipeline.name for pipeline in good]
    for pipeline in [p for p in good if names.count(p.name) > 1]:
        others = ", ".join(str(p.folder) for p in good if p.name == pipeline.name and p.folder != pipeline.folder)
        twice = SpecError(
            f"the name {pipeline.name!r} is also used in {others}",
            where=str(pipeline.folder / SPEC_FILE),
            expected="a name of its own for each pipeline",
            next="rename one of them, then run: perennial check",
        )
        broken.append(Broken(pipeline.folder, twice))
        good.remove(pipeline)
    return Catalogue(root, tuple(good), tuple(broken))


def _need_files(source: Source, spec: PipelineSpec, folder: Path) -> None:
    wanted = {("model", "features"): spec.model.features.rsplit(":", 1)[0]}
    if spec.data.query:
        wanted["data", "query"] = spec.data.query
    for loc, name in wanted.items():
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
        if not inside or not (folder / name).is_file():
            raise SpecError(
                f"{'.'.join(loc)} names {name!r}, which {'does not exist' if inside else 'lies outside the folder'}",
                where=f"{source.path}:{source.mark(loc)[0] + 1}",
                expected=f"a file in {folder}",
                next=f"write {folder / Path(name).name}",
            )


def _digest(spec: PipelineSpec, folder: Path) -> str:
    digest = hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode())
    for file in sorted(p for p in folder.iterdir() if p.suffix in {".py", ".sql"}):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
