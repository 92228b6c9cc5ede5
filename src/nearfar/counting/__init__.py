"""Networks counted layer by layer, the way lectures and papers do."""

from nearfar.counting.network import count, count_on
from nearfar.counting.table import Count, Row

__all__ = ["Count", "Row", "count", "count_on"]
