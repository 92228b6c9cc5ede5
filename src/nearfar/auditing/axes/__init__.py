"""Along what an audit changes size: an axis a file, each registered under the name that ``--axis`` takes."""

# Imported for their registrations, in the order in which errors list them.
from nearfar.auditing.axes import content as content  # isort: skip
from nearfar.auditing.axes import input_side as input_side  # isort: skip
from nearfar.auditing.axes import stored_side as stored_side  # isort: skip
from nearfar.auditing.axes import box_size as box_size  # isort: skip
from nearfar.auditing.axes.axis import AuditAxis, AuditPoints, axis_of, list_axes, register_axis

__all__ = ["AuditAxis", "AuditPoints", "axis_of", "list_axes", "register_axis"]
