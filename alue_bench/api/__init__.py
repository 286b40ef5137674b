"""The functions for scripts and notebooks: `alue_bench.run`, `sweep`, `search`, `fit`, `compare` and `report`."""
