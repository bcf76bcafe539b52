"""The report: `results.json` as a page with tables and figures; nothing is computed here."""
