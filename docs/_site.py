"""A hook of MkDocs: README, changelog, measurements and other pages beside docs/ are pages of the site, too.

In the repository a link leads from file to file, and has to work there. Here it is turned into one from page to page.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\[([^]]+)\]\(([^)#:\s]+)(#[^)]*)?\)")
_BESIDE = {  # a file of the repository, and what it is called on the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
    "models/README.md": "models.md",
    "benchmarks/README.md": "benchmarks.md",
} | {f"benchmarks/results/{path.name}": f"results/{path.name}" for path in (_ROOT / "benchmarks/results").glob("*.md")}
_SOURCES = {page: source for source, page in _BESIDE.items()}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that do not lie in docs/."""
    for source, page in _BESIDE.items():
        files.append(File.generated(config, page, content=(_ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to files into links to pages, and into plain text where the file, a script say, is no page.

    One that leads nowhere stays, and `--strict` reports it.
    """
    here = page.file.src_uri
    source = _SOURCES.get(here, f"docs/{here}")
    return _LINK.sub(lambda link: _linked(link, source, here), markdown)


def _linked(link: re.Match[str], source: str, here: str) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    file = _ROOT / path
    if file.is_dir():
        path = posixpath.join(path, "README.md")
    page = path.removeprefix("docs/") if path.startswith("docs/") else _BESIDE.get(path)
    if page is not None:
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"
    return text if file.exists() else link[0]
