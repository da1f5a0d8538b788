"""Side-by-side benchmarks and the plain reference implementation they compare with."""
