"""The numbers that say whether a factorization's nuisance is one, as a certificate."""

from svae.auditing.comparing import Comparison, compare
from svae.auditing.gates import Gate, failed
from svae.auditing.measuring import Audit, AuditSettings, audit

__all__ = ["Audit", "AuditSettings", "Comparison", "Gate", "audit", "compare", "failed"]
