"""A result as one HTML file that needs nothing else: `--report`. Imported only if it is asked for."""

from bnfold.report.write import Draft, save_report

__all__ = ["Draft", "save_report"]
