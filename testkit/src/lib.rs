//! Network-namespace lab, goldens and the demo; for tests only.
