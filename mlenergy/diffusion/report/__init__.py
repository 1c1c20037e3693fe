"""Reports: results, plans and costs as text. No measuring, no files written."""
