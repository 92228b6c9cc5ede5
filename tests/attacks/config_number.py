"""Tries to keep the parser busy with a number of 100,000 digits.

Stopped by Python's bound on digits, which ends in one line.
"""

SAYS = "is not YAML that can be read|too large|digits"


def attack(folder):
    path = folder / "config.yaml"
    path.write_text(f"seed: {'9' * 100_000}\n")
    return ["train", "--config", path]
