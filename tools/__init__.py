"""Programs of the repository: what makes the manual pages and completions.  Not part of what is installed."""
