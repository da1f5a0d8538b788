"""Turn metrics into tables, figures and claims, from files alone: no training, no network."""
