"""Turn canonical images into stored formats, verified and cached."""
