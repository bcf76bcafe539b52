"""`results.json` as a page with its tables and figures; it computes nothing."""
