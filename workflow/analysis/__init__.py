"""From metrics to tables and figures. Reads files only: no training, no network."""
