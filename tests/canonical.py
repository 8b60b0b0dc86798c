"""Canonical images built from small trees."""

from dataclasses import fields, replace

from loaderbench.images import CanonicalImages, CanonicalSettings
from loaderbench.images.canonical_build import build

SETTINGS = CanonicalSettings(samples=None, seed=0, max_side=32, quality=90)


def ignored(_):
    """Ignore progress."""


def built(tree, folder, **changes):
    """Build the canonical images of a tree in a new folder; `changes` replace settings and arguments of `build`."""
    folder.mkdir()
    settings = {field.name: changes.pop(field.name) for field in fields(CanonicalSettings) if field.name in changes}
    build(tree, folder, replace(SETTINGS, **settings), **{"strict": False, "on_progress": ignored, **changes})
    return CanonicalImages(folder)
