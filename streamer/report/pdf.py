"""A page on paper: A4 as PDF, by WeasyPrint, which the extra `pdf` brings."""

from __future__ import annotations

from engines.base import LeukostreamError

MISSING = (
    "--pdf: got no WeasyPrint, expected it: pip install 'leukostream[pdf]', and Pango from the system (apt-get install"
    " libpango-1.0-0 libpangoft2-1.0-0); or print the HTML page from a browser"
)


def require() -> None:
    """LeukostreamError where WeasyPrint, or a library that it needs, is missing."""
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        raise LeukostreamError(MISSING) from error


def pdf(html: str) -> bytes:
    """LeukostreamError as of `require`. Nothing is loaded but what the page holds itself."""
    require()
    from weasyprint import HTML
    from weasyprint.urls import URLFetcher

    done: bytes = HTML(string=html, url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf()
    return done
