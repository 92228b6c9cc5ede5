"""Plain sentences computed from what was measured."""

from nearfar.auditing.findings.audited import audit_findings
from nearfar.auditing.findings.comparing import findings

__all__ = ["audit_findings", "findings"]
