"""Put the project's pages into the site under their paths in the repository, so that a relative link is the same on
a code host and in the site, and the strict build checks it. MkDocs calls `on_files`; mkdocs.yml names this file.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
IN_THE_SITE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "docs/*.md",
    "docs/*.css",
    "examples/*.*",
    "bench/api.py",
    "bench/campaign/shipped/*.toml",
    "reports/reference-*/*",
    "results/reference-*/*.csv",
    "results/reference-*/env.json",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the theme's files and those of `IN_THE_SITE`."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    paths = sorted(path.relative_to(ROOT) for pattern in IN_THE_SITE for path in ROOT.glob(pattern))
    ours = [File(str(path), str(ROOT), config.site_dir, config.use_directory_urls) for path in paths]
    return Files([*theme, *ours])
