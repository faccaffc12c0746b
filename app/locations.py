"""Where workspaces live."""

import os
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
DEMO = "fashion"
MANIFEST = "manifest.json"


def home() -> Path:
    """The folder of prepared workspaces: $KINDRED_HOME, or ~/.kindred."""
    return Path(os.environ.get("KINDRED_HOME") or Path.home() / ".kindred")


def workspace_path(name_or_path: str) -> Path:
    """Where a workspace of this name or path is, or would be written.

    Something with a separator in it is a path; a plain name is looked for among one's own
    workspaces first, then among those that come with Kindred.
    """
    if os.sep in name_or_path or name_or_path in (".", ".."):
        return Path(name_or_path)
    own, embedded = home() / name_or_path, ASSETS / name_or_path
    return embedded if not own.exists() and (embedded / MANIFEST).exists() else own


def workspace_names() -> list[str]:
    """All workspaces that can be opened by name, the demo last."""
    folders = sorted(home().glob("*")) + sorted(ASSETS.glob("*"))
    found = (f.name for f in folders if not f.name.startswith(".") and (f / MANIFEST).exists())
    return list(dict.fromkeys(found))
