"""``tuner backbone``: which networks there are, and the layers of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import example, experiment, settings
from cli.show import Column, Format, FormatOption, note, show

if TYPE_CHECKING:
    from studies.config.keys import BackboneConfig

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@example("tuner backbone list", 'tuner backbone list --filter "timm/vit_small*"')
def list_(
    filter: Annotated[  # noqa: A002 - the word of the command line
        str | None,
        typer.Option(
            help='Only names that fit this pattern, timm\'s too: "timm/vit_small*", with tags '
            '"timm/vit_small*.*".',
            metavar="PATTERN",
        ),
    ] = None,
    format: FormatOption = Format.table,  # noqa: A002 - the word of the command line
) -> None:
    """List the backbones, and whether their published weights are on this machine."""
    from tuner.backbones import list_backbones

    rows: list[dict[str, Any]] = [dict(row) for row in list_backbones(filter)]
    columns = [
        Column("name", "backbone"),
        Column("imagenet", "weights here"),
        Column("where", "file", fold=True, text=lambda path: Path(path).name),
    ]
    show(rows, format, columns)
    if format is Format.table:
        # one folder holds all that are downloaded; what comes with a package lies elsewhere
        folders = Counter(
            str(Path(row["where"]).parent)
            for row in rows
            if row["where"] and row["family"] != "timm"
        )
        if folders:
            folder, _ = folders.most_common(1)[0]
            note(f"downloaded weights lie in {folder}; TORCH_HOME names another place")
        if filter is None:
            note('timm\'s networks (extra timm) are listed with --filter "timm/*"')


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
            help="Pixels a side; the config file's where there is one, else 224, or what a network of "
            "timm's was trained with.",
            min=16,
            max=4096,
            metavar="N",
        ),
    ] = None,
    format: FormatOption = Format.table,  # noqa: A002
) -> None:
    """List a backbone's layers in depth order, with shape, receptive field and cost."""
    known, size, entry, folder = _from_config(name)
    size = image_size or size

    from tuner.backbones import load_backbone
    from tuner.backbones.functions import beside
    from tuner.backbones.registry import family_of

    with beside(folder):
        # Shapes depend on neither the weights nor the input's range, and random ones need no file.
        weights = "imagenet" if family_of(known).source(known) is None else "random"
        loaded = load_backbone(
            known,
            weights,
            image_size=size,
            tokens=entry.tokens if entry else "grid",
            size=entry.size if entry else None,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
        )
    size = size or loaded.reference
    described = loaded.describe(layer or "all", size)
    rows: list[dict[str, Any]] = [asdict(info) for info in described]
    columns = [
        Column("index", "#"),
        Column("name", "layer", fold=True),
        Column("shape"),
        Column("field", "field px"),
        Column("stride", "stride"),
        Column("rectified"),
        Column("cost", "M mult-adds", digits=1),
    ]
    if format is Format.table:
        for row in rows:
            row["shape"] = f"{row['channels']} x {row['height']} x {row['width']}"
            row["cost"] = row["macs"] / 1e6
            row["field"] = "all" if row["whole_image"] else row["receptive_field"]
        if any(row["whole_image"] for row in rows):
            note(
                '"all": after attention every cell sees the whole image; units.csv says where it looks'
            )
    show(rows, format, columns, title=f"{known}, images of {size} x {size} px")


def _from_config(name: str) -> tuple[str, int | None, BackboneConfig | None, Path]:
    """Look an alias up in the config file, if there is one: the network, the image size, its table, the file's folder."""
    if not settings().config.exists() and settings().config.name == "tuner.toml":
        return name, None, None, Path.cwd()
    configured = experiment()
    entry = next((entry for entry in configured.backbone if entry.alias == name), None)
    known = name if entry is None else entry.name
    return known, configured.data.image_size, entry, configured.folder
