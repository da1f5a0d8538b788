"""Local SGD with more clients than devices (Gu, Lyu, Huang, Arora, ICLR 2023)."""
