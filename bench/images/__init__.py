"""Turn whatever `--data` names into canonical images, which every format stores."""
