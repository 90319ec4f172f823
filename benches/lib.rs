//! What every bench shares: rows, ratios and the report.
