"""``tuner backbone``: which networks there are, and the layers of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import example, experiment, settings
from cli.show import Column, Format, FormatOption, note, show

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@example("tuner backbone list", "tuner backbone list --format json")
def list_(
    format: FormatOption = Format.table,  # noqa: A002 - the word of the command line
) -> None:
    """List the backbones, and whether their ImageNet weights are on this machine."""
    from tuner.backbones import list_backbones

    rows: list[dict[str, Any]] = [dict(row) for row in list_backbones()]
    columns = [
        Column("name", "backbone"),
        Column("imagenet", "weights here"),
        Column("where", "file", fold=True, text=lambda path: Path(path).name),
    ]
    show(rows, format, columns)
    if format is Format.table:
        # one folder holds all that are downloaded; what comes with a package lies elsewhere
        folder, _ = Counter(str(Path(row["where"]).parent) for row in rows).most_common(1)[0]
        note(f"downloaded weights lie in {folder}; TORCH_HOME names another place")


@app.command()
@example(
    "tuner backbone layers vgg19",
    "tuner backbone layers efficientnet_lite0 --image-size 64 --format csv",
)
def layers(
    name: Annotated[
        str, typer.Argument(help="A backbone, or an alias in the config file.", metavar="NAME")
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Only this layer, any module path; repeatable.", metavar="NAME"),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels a side; the config file's where there is one, else 224.",
            min=16,
            max=4096,
            metavar="N",
        ),
    ] = None,
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """List a backbone's layers in depth order, with shape, receptive field and cost."""
    known, size = _from_config(name)
    size = image_size or size

    from tuner.backbones import load_backbone

    # Shapes do not depend on the weights, and random ones need no file.
    described = load_backbone(known, "random").describe(layer or "all", size)
    rows: list[dict[str, Any]] = [asdict(info) for info in described]
    columns = [
        Column("index", "#"),
        Column("name", "layer", fold=True),
        Column("shape"),
        Column("receptive_field", "field px"),
        Column("stride", "stride"),
        Column("rectified"),
        Column("cost", "M mult-adds", digits=1),
    ]
    if format is Format.table:
        for row in rows:
            row["shape"] = f"{row['channels']} x {row['height']} x {row['width']}"
            row["cost"] = row["macs"] / 1e6
    show(rows, format, columns, title=f"{known}, images of {size} x {size} px")


def _from_config(name: str) -> tuple[str, int]:
    """Look an alias and the image size up in the config file, if there is one."""
    if not settings().config.exists() and settings().config.name == "tuner.toml":
        return name, 224
    configured = experiment()
    names = {entry.alias: entry.name for entry in configured.backbone}
    return names.get(name, name), configured.data.image_size
