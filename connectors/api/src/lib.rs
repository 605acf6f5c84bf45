//! The contract between the worker and its connectors: values, records, positions, sources and sinks.
