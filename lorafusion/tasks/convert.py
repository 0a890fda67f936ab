"""Any weights that we can read, as safetensors by our names, with a JSON of the configuration beside them."""

import json
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from lorafusion.convert.fill import fill
from lorafusion.errors import UserError
from lorafusion.files import replacing, write_text
from lorafusion.sites import Network
from lorafusion.tasks import run_folder, weights

_DATA = ("name", "resolution", "channels", "num_classes")


def convert(cfg: DictConfig) -> None:
    path = run_folder.find_checkpoint(cfg.file)
    given = weights.read_verified(path, ema=cfg.ema)
    run = run_folder.saved_config(path) if given.images_seen is not None else cfg
    net: Network = instantiate(run.denoiser, _convert_="all").net
    fill(net, given.tensors, source=str(path))
    out = (Path(cfg.out).expanduser() if cfg.out else path.with_suffix(weights.EXPORT)).absolute()
    if out.suffix != weights.EXPORT:
        raise UserError(f"out={cfg.out}: the name of an export ends in .safetensors")
    if out.exists() and out.samefile(path):
        raise UserError(f"convert would write over {path}; choose another out=...")
    export(net, configuration(run, given.kind, given.images_seen, path.name), out)
    print(f"{len(net.state_dict())} tensors of {path.name} ({given.kind}) by our names, beside {out.stem}.json")
    print(out)


def configuration(run: DictConfig, kind: str, images_seen: int | None, source: str) -> dict[str, Any]:
    """What the JSON says: plain values, interpolations resolved."""
    denoiser = cast(dict[str, Any], OmegaConf.to_container(run.denoiser, resolve=True))
    inside = (denoiser.pop("net"), denoiser.pop("conditioning"), denoiser.pop("process"))
    return {
        "name": run.name,
        **dict(zip(weights.PARTS, (denoiser, *inside), strict=True)),
        "sampler": None if run.sampler is None else OmegaConf.to_container(run.sampler, resolve=True),
        "data": {key: run.data[key] for key in _DATA},
        "source": source,
        "weights": kind,
        "images_seen": images_seen,
        "versions": run_folder.versions(),
    }


def export(net: Network, config: dict[str, Any], out: Path) -> None:
    """Write ``net`` to ``out``, and ``config`` with the file's checksum to the .json beside it; each whole or not."""
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in net.state_dict().items()}
    try:
        with replacing(out) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
            record = {**config, "sha256": weights.sha256(temporary)}
            out.with_suffix(".json").unlink(missing_ok=True)  # of an older export: its checksum is another
    except Exception as error:  # a full disk, by whatever name safetensors calls it
        raise UserError(f"export {out} could not be written: {' '.join(str(error).split())[:200]}") from error
    write_text(out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
