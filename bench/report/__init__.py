"""Turn findings into Markdown and pictures."""
