"""Comparisons of several nets, each a command: data, nets, budget, and the files they leave."""
