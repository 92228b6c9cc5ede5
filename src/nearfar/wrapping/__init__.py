"""A classifier over several sizes without training: which levels there are, and which of them to vote."""

from nearfar.wrapping.levels import LEVELS, CandidateLevel, CandidateLevels, candidate_levels
from nearfar.wrapping.search import Choice, LevelAnswers, choose
from nearfar.wrapping.structures import VOTES, Structure

__all__ = [
    "LEVELS",
    "VOTES",
    "LevelAnswers",
    "Choice",
    "CandidateLevel",
    "CandidateLevels",
    "Structure",
    "candidate_levels",
    "choose",
]
