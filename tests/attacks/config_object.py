"""Tries to run a command by a tag in a configuration, as YAML's full loader would.

Stopped by the safe loader, which makes plain data alone.
"""

SAYS = "could not determine a constructor"


def attack(folder):
    path = folder / "config.yaml"
    path.write_text("seed: !!python/object/apply:os.system ['touch owned']\n")
    return ["train", "--config", path]
