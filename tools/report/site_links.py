"""Hooks of mkdocs.yml: what the site does with links of docs/ that lead out of it, and with its diagrams.

A page links to the code beside it, which the site does not hold. There such a link is its text alone, unless
`repo_url` says where the repository is; tests/test_docs.py checks in the clone that it leads somewhere.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
MERMAID = Path("build/node/node_modules/mermaid/dist/mermaid.min.js")
"""Where `make site` puts it. Without it the theme fetches the program that draws diagrams when a page is read."""
SERVED = "javascripts/mermaid.min.js"


def on_config(config: Any) -> Any:
    if MERMAID.is_file():
        config.extra_javascript.append(SERVED)
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = posixpath.dirname(page.file.src_uri)
    known = {file.src_uri for file in files}

    def shown(link: re.Match[str]) -> str:
        text, target = link[1], link[2].partition("#")[0]
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join("docs", here, target))
        if path.startswith("docs/") and path[5:] in known:
            return link[0]
        if not Path(path).exists():
            return link[0]  # mkdocs says that it leads nowhere
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})" if config.repo_url else text

    # Code is left as it is: every other part of the split.
    parts = re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    return "".join(part if number % 2 else LINK.sub(shown, part) for number, part in enumerate(parts))


def on_post_build(config: Any) -> None:
    if MERMAID.is_file():
        target = Path(config.site_dir, SERVED)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MERMAID, target)
