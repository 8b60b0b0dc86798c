"""Writers: one module per library, which stores canonical images in its format. See docs/adding-a-loader.md."""
