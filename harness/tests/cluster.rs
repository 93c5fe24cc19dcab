//! What the harness says when things go wrong on a real cluster.
