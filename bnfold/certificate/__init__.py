"""A record of what was folded and how it was verified, that anybody can check again later."""

from bnfold.certificate.check import CertificateCheck, verify_certificate
from bnfold.certificate.record import Certificate, CertificateError, Options
from bnfold.certificate.write import Draft

__all__ = [
    "Certificate",
    "CertificateCheck",
    "CertificateError",
    "Draft",
    "Options",
    "verify_certificate",
]
