"""The accuracy report of a bundle: gathered as plain JSON, drawn as HTML and Markdown."""

from .build import FILES, REPORT, build_report, bundle_report, read_report, render, write_report

__all__ = ["FILES", "REPORT", "build_report", "bundle_report", "read_report", "render", "write_report"]
