"""The command line: every command is the public function of the same name."""

from nearfar.cli.main import main

__all__ = ["main"]
