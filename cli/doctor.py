"""``tuner doctor``: find and mend what kills and copies leave behind."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import example, experiment
from cli.show import note, write


@example("tuner doctor", "tuner doctor --fix")
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
) -> None:
    """Find orphaned trials, lost or stray files, a damaged cache, settings that do not match."""
    from studies.database.stores import as_made, open_stores
    from studies.doctor import examine
    from studies.workspace import Workspace

    workspace = Workspace(as_made(experiment()))
    with open_stores(workspace.experiment) as stores:
        findings = examine(workspace, stores)
        for finding in findings:
            write(finding.what)
            if finding.mend is None:
                write(f"    you: {finding.remedy}")
            elif fix and finding.mend():
                write(f"    mended: {finding.remedy}")
            elif fix:
                write("    left: it is in use just now; run this again when the search rests")
            else:
                write(f"    --fix: {finding.remedy}")
    mendable = sum(finding.mend is not None for finding in findings)
    if not findings:
        note("all is well")
    elif not fix and mendable:
        note(f"{len(findings)} findings; mend {mendable} of them with 'tuner doctor --fix'")
