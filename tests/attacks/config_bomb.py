"""Tries to fill the memory: a configuration of a few lines, each nine times the one before.

Stopped by counting values as often as they are referred to.
"""

SAYS = "more than 1,000,000 values"


def attack(folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = folder / "config.yaml"
    path.write_text("\n".join(lines))
    return ["train", "--config", path]
